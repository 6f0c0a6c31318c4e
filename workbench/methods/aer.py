"""AER: an entropy bonus that is larger on harder prompts and controlled towards a share of the initial entropy."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
from pydantic import Field, PrivateAttr
from torch import Tensor

from workbench.methods import statistics
from workbench.methods.base import Method, register
from workbench.tables import Rollouts, Table

MIN_ACTIVE = 0.01


@register
class Aer(Method):
    """loss −= α · w(q) · H per response token: α steers entropy to τ·H_0, w(q) puts the bonus on hard prompts.

        H* = target_ratio · H_0, H_0 the first step's entropy; or `target` nats
        g(q) = share of correct responses; w(q) = max(floor, …):
            linear: max(0, (ρ − g)/ρ)   step: 1[g ≤ ρ]   smooth: σ((ρ − g)/0.1)   onelin: 1 − g   uniform: 1
        α ← clip(α + rate · (H* − H), lower, α_max)               additive, lower = 0; two_sided: lower = −α_max
        α ← clip(α + rate · sign(H* − H), 0, α_max)               sign
        α ← clip(α · exp(rate · (H* − H)/H*), 0, α_max)           exp

    arXiv 2510.10959 (S: three components, anchoring to the initial entropy, difficulty threshold ρ, τ = 0.4; the
    formulas and all other constants are reconstructed (I), no code is public). H is the step's rollout entropy, α holds
    for all of its updates and moves after them. Differentiable: H of the current policy, on all response tokens;
    detached: w, α, H*. While fewer than 1 % of the rollout tokens have w > 0, α does not move (anti-windup: I).
    `normalise` divides w by its mean over the mini-batch's tokens. g counts the responses that are in the update.

    α starts at 0 and stays there until entropy has fallen to H*. `rate` 0 holds α at `initial`: with 0 that is the run
    without the method; with a positive one, `weighting` uniform, a fixed bonus.
    """

    name: ClassVar[str] = "aer"
    paper: ClassVar[str] = "2510.10959"

    target_ratio: float = Field(0.4, ge=0, description="τ: target entropy over initial entropy")
    target: float | None = Field(None, gt=0, description="absolute target H* in nats in place of τ·H_0; none: relative")
    weighting: Literal["linear", "step", "smooth", "onelin", "uniform"] = Field("linear", description="(I) shape of w")
    threshold: float = Field(0.5, gt=0, le=1, description="(I) ρ: group accuracy from which a prompt counts as easy")
    floor: float = Field(0.0, ge=0, le=1, description="(I) smallest w")
    normalise: bool = Field(False, description="(I) divide w by its mean, so that the mean strength is α")
    update: Literal["additive", "sign", "exp", "two_sided"] = Field("additive", description="(I) rule for α")
    rate: float = Field(0.005, ge=0, description="(I) η: how fast α moves per rollout step; 0 holds it")
    initial: float = Field(0.0, description="(I) α of the first step")
    maximum: float = Field(0.05, ge=0, description="(I) α_max")

    _alpha: float = PrivateAttr(0.0)
    _target: float | None = PrivateAttr(None)
    _active: float = PrivateAttr(1.0)

    def model_post_init(self, _context) -> None:
        self._alpha = self.initial
        self._target = self.target

    def check(self, config) -> None:
        lower = -self.maximum if self.update == "two_sided" else 0.0
        if not lower <= self.initial <= self.maximum:
            raise ValueError(
                f"aer.initial is {self.initial}, outside [{lower}, aer.maximum {self.maximum}]; change one"
            )
        if self.update == "exp" and self.rate and self.initial == 0:
            raise ValueError("aer.update 'exp' multiplies α, which stays 0 from aer.initial 0; start at e.g. 0.001")

    def cautions(self, config) -> list[str]:
        partial = [m["name"] for m in config.methods if m["name"] in ("sample_polarity", "reinforce")]
        if not partial or self.weighting == "uniform":
            return []
        return [
            f"{partial[0]} can drop responses by correctness, and aer's group accuracy counts those in the update only"
        ]

    def look(self, rollouts: Rollouts) -> None:
        self._active = float(statistics.mean(rollouts.broadcast_to_tokens(self._difficulty(rollouts)) > 0))

    def mark(self, batch: Rollouts) -> dict[str, Tensor]:
        weight = batch.broadcast_to_tokens(self._difficulty(batch))
        if self.normalise:
            mean = statistics.mean(weight).to(weight.dtype)
            weight = torch.where(mean > 0, weight / mean, weight)
        return {"aer_weight": weight}

    def _difficulty(self, rollouts: Rollouts) -> Tensor:
        """w(q) per sequence [S]."""
        accuracy = rollouts.group_mean(rollouts.sequences.correct.to(rollouts.tokens.rollout_logp.dtype))
        gap = self.threshold - accuracy
        weights = {
            "linear": lambda: gap / self.threshold,
            "step": lambda: (gap >= 0).to(gap.dtype),
            "smooth": lambda: torch.sigmoid(gap / 0.1),
            "onelin": lambda: 1 - accuracy,
            "uniform": lambda: torch.ones_like(gap),
        }
        return weights[self.weighting]().clamp(min=self.floor)

    def regulariser(self, tokens: Table, logp: Tensor, entropy: Tensor) -> Tensor | None:
        return -self._alpha * tokens.aer_weight * entropy if self._alpha else None

    def observe(self, measures: dict[str, float]) -> None:
        entropy = measures["entropy/mean"]
        if self._target is None:
            self._target = self.target_ratio * entropy
        if self._active < MIN_ACTIVE:
            return
        gap = self._target - entropy
        if self.update == "exp":
            moved = self._alpha * math.exp(self.rate * gap / max(self._target, 1e-6))
        else:
            sign = (gap > 0) - (gap < 0)
            moved = self._alpha + self.rate * (sign if self.update == "sign" else gap)
        lower = -self.maximum if self.update == "two_sided" else 0.0
        self._alpha = min(self.maximum, max(lower, moved))

    def measures(self) -> dict[str, float]:
        """α of the step, H* once it is known, and the share of rollout tokens with w > 0."""
        known = {} if self._target is None else {"target": self._target}
        return {"alpha": self._alpha, "active_fraction": self._active, **known}
