"""Positive-advantage reweighting, entropy-guided (arXiv 2511.05993)."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field, PrivateAttr
from torch import Tensor

from workbench.methods.base import Method, register
from workbench.tables import Rollouts


@register
class PosAdvReweight(Method):
    """Less weight on rewarded tokens while entropy is low: tokens with A > 0 weigh λ ∈ [0, 1], all others 1.

    λ follows the measured entropy H_k:

        λ_{k+1} = clip(λ_k − Δ, 0, 1) if H_k < target, else clip(λ_k + Δ, 0, 1)

    arXiv 2511.05993 (S); there target δ = 0.2 nats, Δ = 0.05, λ_0 = 0, four updates per rollout. λ is constant
    within a rollout step and detached. The loss's denominator is not reweighted (I: the paper is silent). H_k is this
    step's rollout entropy (I). λ = 1 with Δ = 0 is plain GRPO.
    """

    name: ClassVar[str] = "pos_adv_reweight"
    paper: ClassVar[str] = "2511.05993, entropy-guided schedule"

    target: float = Field(0.2, ge=0, description="entropy to steer to, nats")
    delta: float = Field(0.05, ge=0, le=1, description="Δ: change of λ per rollout step")
    initial: float = Field(0.0, ge=0, le=1, description="λ_0")

    _lambda: float = PrivateAttr(0.0)

    def model_post_init(self, _context) -> None:
        self._lambda = self.initial

    def weight(self, batch: Rollouts, weight: Tensor) -> Tensor:
        return torch.where(batch.tokens.advantage > 0, weight * self._lambda, weight)

    def observe(self, measures: dict[str, float]) -> None:
        change = -self.delta if measures["entropy/mean"] < self.target else self.delta
        self._lambda = min(1.0, max(0.0, self._lambda + change))

    def measures(self) -> dict[str, float]:
        return {"lambda": self._lambda}
