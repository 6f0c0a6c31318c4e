"""The methods of a run as one: hooks composed in order, and the refusal of lists that make no objective."""

from __future__ import annotations

import torch
from torch import Tensor

from workbench.config import METHOD_LIST_CHECKS
from workbench.methods.base import Method
from workbench.tables import Rollouts, Table


class Composition:
    """Calls each hook on every method in order. Raises `ValueError` unless exactly one gives a baseline and at most one
    a surrogate."""

    def __init__(self, methods: list[Method]):
        self.methods = methods
        self._baseline = _only(methods, "baseline", required=True)
        self._surrogate = _only(methods, "surrogate", required=False)

    def select(self, candidates: list, step: int) -> list:
        for method in self.methods:
            candidates = method.select(candidates, step)
        return candidates

    def temperature(self, prompts: list, temperature: Tensor) -> Tensor:
        for method in self.methods:
            temperature = method.temperature(prompts, temperature)
        return temperature

    def reward(self, rollouts: Rollouts, reward: Tensor) -> Tensor:
        for method in self.methods:
            reward = method.reward(rollouts, reward)
        return reward

    def keep(self, rollouts: Rollouts) -> Tensor:
        keep = torch.ones(len(rollouts.sequences), dtype=torch.bool, device=rollouts.sequences.reward.device)
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

    def clip(self, tokens: Table, low: float, high: float) -> tuple[Tensor, Tensor]:
        """Bounds per token, [N] each."""
        device = tokens.advantage.device
        bounds = torch.tensor(low, device=device), torch.tensor(high, device=device)
        for method in self.methods:
            bounds = method.clip(tokens, *bounds)
        return bounds[0].expand(len(tokens)), bounds[1].expand(len(tokens))

    def surrogate(self, tokens: Table, logp: Tensor, low: Tensor, high: Tensor) -> Tensor | None:
        return None if self._surrogate is None else self._surrogate.surrogate(tokens, logp, low, high)

    def weight(self, tokens: Table) -> Tensor:
        weight = torch.ones_like(tokens.advantage)
        for method in self.methods:
            weight = method.weight(tokens, weight)
        return weight.detach()

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


def _only(methods: list[Method], hook: str, required: bool) -> Method | None:
    having = [m for m in methods if getattr(type(m), hook) is not getattr(Method, hook)]
    if len(having) > 1:
        raise ValueError(f"methods {[m.name for m in having]} each give a {hook}; keep one of them")
    if required and not having:
        raise ValueError(f"methods {[m.name for m in methods]} give no {hook}; add one, e.g. 'grpo'")
    return having[0] if having else None


METHOD_LIST_CHECKS.append(Composition)
