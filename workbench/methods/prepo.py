"""PREPO: prompts chosen by their perplexity, from easy to hard, and responses weighted by their relative entropy."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

from pydantic import Field, PrivateAttr
from torch import Tensor

from workbench.methods import statistics
from workbench.methods.base import Method, register
from workbench.tables import Rollouts, Table


@register
class Prepo(Method):
    """Rolls out a window of the candidate prompts that climbs in perplexity; weighs responses by relative entropy.

        candidates B sorted by prompt perplexity, K = keep_fraction · |B| of them from rank l on:
            scheduled: l = ⌊ρ · rank_span · (|B| − K)⌋, ρ = (step − 1)/(steps − 1);  low: l = 0;  high: l = |B| − K
        w_i = H̄_i / max(mean of H̄ over the mini-batch's responses, 1e-6), optionally clamped;  H̄_i = mean_t H_{i,t}

    arXiv 2511.00794 (S: sort, window, w_i; S: ρ = step/total; here it reaches 1 in the last step (I)). The paper's
    baseline "Random" rolls out 20 % of the candidates at random, hence keep_fraction (its use here is I); `off` is it.
    Perplexity is of the prompt's tokens after the first, under the current policy (first token left out: I). H is of
    the policy before the step's updates, so w is fixed over them (I), and all of it is detached. w weighs A > 0 and
    A < 0 alike (I); responses with A = 0 count in the mean (I). The candidates come off the walk through the prompts;
    those not chosen return in the next epoch.

    The paper prints a sum over a response's tokens without 1/|o_i|: `objective.denominator` constant. Its figure shows
    the window ending far below the top of the batch (S-fig), at odds with l(1) = |B| − K: `rank_span` below 1 mimics
    it. `schedule` off with `relative_entropy` off is the run without the method.
    """

    name: ClassVar[str] = "prepo"
    paper: ClassVar[str] = "2511.00794"

    schedule: Literal["scheduled", "low", "high", "off"] = Field("scheduled", description="where the window stands")
    keep_fraction: float = Field(0.2, gt=0, le=1, description="(I) K/|B|: share of the candidates that is rolled out")
    rank_span: float = Field(1.0, ge=0, le=1, description="scheduled: share of the ranks the window climbs")
    relative_entropy: bool = Field(True, description="weigh responses by w_i")
    clamp_low: float = Field(0.0, ge=0, le=1, description="(I) smallest w_i; 0 is no bound")
    clamp_high: float = Field(math.inf, ge=1, description="(I) largest w_i; .inf is no bound")

    _window: dict[str, float] = PrivateAttr(default_factory=dict)
    _weights: dict[str, float] = PrivateAttr(default_factory=dict)

    def needs(self) -> set[str]:
        wanted = {"prompt_perplexity": self.schedule != "off", "old_logp": self.relative_entropy}
        return {need for need, reads in wanted.items() if reads}

    def check(self, config) -> None:
        drawn = self.candidates(config.rollout.prompts)
        if drawn > config.task.train_size:
            raise ValueError(
                f"prepo ranks {drawn} candidates per step, but task.train_size is {config.task.train_size}; raise it "
                "or prepo.keep_fraction"
            )

    def cautions(self, config) -> list[str]:
        if self.schedule != "off" and self.candidates(config.rollout.prompts) == config.rollout.prompts:
            return ["prepo.schedule is inert: prepo.keep_fraction leaves no candidate out"]
        return []

    def candidates(self, count: int) -> int:
        return count if self.schedule == "off" else math.ceil(count / self.keep_fraction - 1e-9)

    def select(self, prompts: Table, chosen: Tensor) -> Tensor:
        if self.schedule == "off":
            return chosen
        count = math.floor(len(chosen) * self.keep_fraction + 1e-9)
        ranked = prompts.perplexity[chosen].argsort(stable=True)
        first = self._first_rank(len(chosen) - count)
        perplexity = prompts.perplexity[chosen][ranked[first : first + count]]
        self._window = {
            "rank": float(first),
            "perplexity_low": float(perplexity[0]),
            "perplexity_high": float(perplexity[-1]),
        }
        return chosen[ranked[first : first + count].sort().values]  # in the order drawn

    def _first_rank(self, last: int) -> int:
        if self.schedule != "scheduled":
            return 0 if self.schedule == "low" else last
        progress = (self._now.step - 1) / max(1, self._now.steps - 1)
        return math.floor(progress * self.rank_span * last + 1e-9)

    def weight(self, batch: Rollouts, weight: Tensor) -> Tensor:
        if not self.relative_entropy:
            return weight
        entropy = batch.mean_by_sequence(batch.tokens.entropy)
        mean = statistics.mean(entropy).clamp(min=1e-6).to(entropy.dtype)
        relative = (entropy / mean).clamp(self.clamp_low, None if math.isinf(self.clamp_high) else self.clamp_high)
        self._weights = {}
        for name, sign in (("positive", 1), ("negative", -1)):
            chosen = batch.sequences.advantage * sign > 0
            if statistics.total(chosen):
                self._weights[f"weight_{name}"] = float(statistics.mean(relative, chosen))
        return weight * batch.broadcast_to_tokens(relative)

    def measures(self) -> dict[str, float]:
        """Where the window stands, and the mean w_i of responses with A > 0 and A < 0 in the step's last update."""
        return self._window | self._weights
