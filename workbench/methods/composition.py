"""The methods of a run as one: hooks composed in order, and the refusal of lists that make no objective."""

from __future__ import annotations

from collections import Counter

import torch
from torch import Tensor

from workbench.config import METHOD_LIST_CHECKS
from workbench.methods.base import Method
from workbench.methods.terms import EXCLUSIVE, NEEDS, CriticConfig, Progress
from workbench.tables import Rollouts, Table


class Composition:
    """Calls each hook on every method in order.

    Raises `ValueError` unless exactly one method gives a baseline, and if a method is listed twice or two of them give
    a ratio, a surrogate, clip bounds or a critic.
    """

    def __init__(self, methods: list[Method]):
        self.methods = methods
        only = {hook: _only(methods, hook) for hook in EXCLUSIVE}
        if only["baseline"] is None:
            raise ValueError(f"methods {[m.name for m in methods]} give no baseline; add one, e.g. 'grpo'")
        twice = [name for name, count in Counter(m.name for m in methods).items() if count > 1]
        if twice:
            raise ValueError(f"methods list '{twice[0]}' twice; keep one of them")
        self._baseline, self._ratio, self._surrogate = only["baseline"], only["ratio"], only["surrogate"]
        self._critic = only["critic"]
        self.needs = set().union(*(m.needs() for m in methods))
        assert self.needs <= set(NEEDS), self.needs

    def begin(self, progress: Progress) -> None:
        for method in self.methods:
            method.begin(progress)

    def pool(self, prompts: Table) -> Tensor:
        pool = torch.ones(len(prompts), dtype=torch.bool)
        for method in self.methods:
            pool = method.pool(prompts, pool)
        return pool

    def candidates(self, count: int) -> int:
        for method in reversed(self.methods):
            count = method.candidates(count)
        return count

    def select(self, prompts: Table) -> Tensor:
        chosen = torch.arange(len(prompts))
        for method in self.methods:
            chosen = method.select(prompts, chosen)
        return chosen

    def temperature(self, prompts: Table, temperature: Tensor) -> Tensor:
        for method in self.methods:
            temperature = method.temperature(prompts, temperature)
        return temperature

    def inject(self, rollouts: Rollouts) -> dict[int, str]:
        return {row: text for method in self.methods for row, text in method.inject(rollouts).items()}

    def rounds(self) -> int:
        return max(method.rounds() for method in self.methods)

    def accept(self, rollouts: Rollouts) -> Tensor:
        accept = torch.ones_like(rollouts.sequences.prompt, dtype=torch.bool)
        for method in self.methods:
            accept = method.accept(rollouts, accept)
        return accept

    def reward(self, rollouts: Rollouts, reward: Tensor) -> Tensor:
        for method in self.methods:
            reward = method.reward(rollouts, reward)
        return reward

    def keep(self, rollouts: Rollouts) -> Tensor:
        keep = torch.ones_like(rollouts.sequences.prompt, dtype=torch.bool)
        for method in self.methods:
            keep = method.keep(rollouts, keep)
        return keep

    def baseline(self, rollouts: Rollouts) -> Tensor:
        return self._baseline.baseline(rollouts)

    def advantage(self, rollouts: Rollouts) -> Tensor:
        advantage = rollouts.broadcast_to_tokens(rollouts.sequences.advantage)
        for method in self.methods:
            advantage = method.advantage(rollouts, advantage)
        return advantage

    def critic(self) -> CriticConfig | None:
        return None if self._critic is None else self._critic.critic()

    def critic_target(self, rollouts: Rollouts) -> Tensor | None:
        return None if self._critic is None else self._critic.critic_target(rollouts)

    def look(self, rollouts: Rollouts) -> None:
        for method in self.methods:
            method.look(rollouts)

    def clip(self, batch: Rollouts, low: float, high: float) -> tuple[Tensor, Tensor]:
        """Bounds per token, [N] each."""
        like = batch.tokens.advantage
        bounds = like.new_tensor(low), like.new_tensor(high)
        for method in self.methods:
            bounds = method.clip(batch, *bounds)
        return bounds[0].expand_as(like), bounds[1].expand_as(like)

    def mask(self, batch: Rollouts) -> Tensor:
        mask = torch.ones_like(batch.tokens.sequence, dtype=torch.bool)
        for method in self.methods:
            mask = method.mask(batch, mask)
        return mask

    def weight(self, batch: Rollouts) -> Tensor:
        weight = torch.ones_like(batch.tokens.advantage)
        for method in self.methods:
            weight = method.weight(batch, weight)
        return weight.detach()

    def mark(self, batch: Rollouts) -> dict[str, Tensor]:
        return {name: column for method in self.methods for name, column in method.mark(batch).items()}

    def ratio(self, tokens: Table, logp: Tensor) -> Tensor:
        own = None if self._ratio is None else self._ratio.ratio(tokens, logp)
        return (logp - tokens.old_logp).exp() if own is None else own

    def surrogate(self, tokens: Table, ratio: Tensor, logp: Tensor) -> Tensor | None:
        return None if self._surrogate is None else self._surrogate.surrogate(tokens, ratio, logp)

    def regulariser(self, tokens: Table, logp: Tensor, entropy: Tensor) -> Tensor | None:
        """Σ of the methods' regularisers [n]; None when there is none."""
        terms = [m.regulariser(tokens, logp, entropy) for m in self.methods]
        present = [term for term in terms if term is not None]
        return sum(present[1:], present[0]) if present else None

    def observe(self, measures: dict[str, float]) -> None:
        for method in self.methods:
            method.observe(measures)

    def measures(self) -> dict[str, float]:
        return {f"method/{m.name}/{key}": value for m in self.methods for key, value in m.measures().items()}

    def state_dict(self) -> list[dict]:
        return [method.state_dict() for method in self.methods]

    def load_state_dict(self, states: list[dict]) -> None:
        for method, state in zip(self.methods, states, strict=True):
            method.load_state_dict(state)


def _only(methods: list[Method], hook: str) -> Method | None:
    having = [m for m in methods if hook in m.exclusive()]
    if len(having) > 1:
        raise ValueError(f"methods {[m.name for m in having]} each give a {hook}; keep one of them")
    return having[0] if having else None


METHOD_LIST_CHECKS.append(Composition)
