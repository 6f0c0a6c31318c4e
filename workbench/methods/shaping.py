"""Advantages tilted by a response's perplexity, or by a token's position in its response."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from workbench.methods.base import Method, register
from workbench.tables import Rollouts


class Window(Method):
    """A method that acts in the rollout steps `start` < step < `stop` only."""

    start: int = Field(0, ge=0, description="acts after this rollout step")
    stop: int | None = Field(None, ge=1, description="acts before this rollout step; none: to the end")

    def check(self, config) -> None:
        if self.stop is not None and self.stop <= self.start + 1:
            raise ValueError(f"{self.name} acts between steps {self.start} and {self.stop}, in none; raise its stop")

    def cautions(self, config) -> list[str]:
        if self.start < config.training.steps:
            return []
        return [f"{self.name} is inert: start is {self.start}, training.steps is {config.training.steps}"]

    def open(self) -> bool:
        return self.start < self._now.step and (self.stop is None or self._now.step < self.stop)


def relative_log_perplexity(rollouts: Rollouts) -> tuple[Tensor, Tensor]:
    """(w [S], inlier [S] bool): a response's log-perplexity ℓ_i = −mean_t log π_old, standardised within its group.

    Mean and population deviation are those of the group's inliers, ℓ in [Q1 − 1.5·IQR, Q3 + 1.5·IQR], of which there
    always is one: the median. A deviation of at most 1e-6 counts as 1. Outliers get their w as well.
    """
    value = -rollouts.mean_by_sequence(rollouts.tokens.old_logp)
    low, high = rollouts.group_quantile(value, 0.25), rollouts.group_quantile(value, 0.75)
    reach = 1.5 * (high - low)
    inlier = (value >= low - reach) & (value <= high + reach)
    share = rollouts.group_mean(inlier.to(value.dtype))
    mean = rollouts.group_mean(torch.where(inlier, value, 0.0)) / share
    variance = rollouts.group_mean(torch.where(inlier, (value - mean).square(), 0.0)) / share
    deviation = variance.sqrt()
    return (value - mean) / torch.where(deviation <= 1e-6, 1.0, deviation), inlier


@register
class PerplexityShaping(Window):
    """Responses the policy finds likely count a little more than unlikely ones, or the other way round.

        low: A · clip(1 − a·w, 0.8, 1.2);   high: A · clip(1 + a·w, 0.8, 1.2);   w = `relative_log_perplexity`
        additive: A − a·clip(w, −2, 2)·sign(A), outliers of w leave the update

    arXiv 2508.02260 (S code and paper): a = 0.01, so that |w| ≤ 3 moves a weight by 3 % at most; `low` is the paper's
    method, `high` its mirror. The released `low` computes the weight and never multiplies by it: `bug_compat` is that,
    the run without the method. `additive` is a second loss of the release, unused there; where |A| < 2a it can flip a
    sign. w comes from the policy before the step's updates; everything is detached. a = 0 is the run without the
    method.
    """

    name: ClassVar[str] = "perplexity_shaping"
    paper: ClassVar[str] = "2508.02260, perplexity shaping"

    strength: float = Field(0.01, ge=0, description="a; 0 is off")
    variant: Literal["low", "high", "additive", "bug_compat"] = Field("low", description="what is favoured, and how")

    def needs(self) -> set[str]:
        return {"old_logp"} if self.strength and self.variant != "bug_compat" else set()

    def acts(self) -> bool:
        return bool(self.strength) and self.variant != "bug_compat" and self.open()

    def advantage(self, rollouts: Rollouts, advantage: Tensor) -> Tensor:
        if not self.acts():
            return advantage
        w = rollouts.broadcast_to_tokens(relative_log_perplexity(rollouts)[0])
        if self.variant == "additive":
            return advantage - self.strength * w.clamp(-2, 2) * advantage.sign()
        tilt = -self.strength if self.variant == "low" else self.strength
        return advantage * (1 + tilt * w).clamp(0.8, 1.2)

    def keep(self, rollouts: Rollouts, keep: Tensor) -> Tensor:
        if self.variant != "additive" or not self.acts():
            return keep
        return keep & relative_log_perplexity(rollouts)[1]


@register
class PositionShaping(Window):
    """Tokens late in a response (or early) count more, rewarded or punished alike.

        A'_t = A_t + sign(A_t) · min(a · σ(±k · (position/length − 0.5)), 0.5·|A_t|);   + late, − early

    arXiv 2508.02260 (S code): a = 0.1, k = 15, active in 200 < step < 300 of about 600; the step after which entropy
    and accuracy move slowly is meant. `start` defaults to 0 here, since that step depends on the run (I). A token with
    A = 0 keeps it, none changes sign. Detached. a = 0 is the run without the method.
    """

    name: ClassVar[str] = "position_shaping"
    paper: ClassVar[str] = "2508.02260, position shaping"

    strength: float = Field(0.1, ge=0, description="a; 0 is off")
    slope: float = Field(15.0, gt=0, description="k: how sharply the bonus sets in at the middle")
    variant: Literal["late", "early"] = Field("late", description="which end of a response counts more")

    def advantage(self, rollouts: Rollouts, advantage: Tensor) -> Tensor:
        if not self.strength or not self.open():
            return advantage
        length = rollouts.broadcast_to_tokens(rollouts.sequences.length)
        place = rollouts.tokens.position.to(advantage.dtype) / length
        slope = self.slope if self.variant == "late" else -self.slope
        bonus = torch.minimum(self.strength * torch.sigmoid(slope * (place - 0.5)), 0.5 * advantage.abs())
        return advantage + advantage.sign() * bonus
