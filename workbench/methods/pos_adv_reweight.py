"""Positive-advantage reweighting: stage-based, epoch-wise, entropy-guided or constant (arXiv 2511.05993)."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field, PrivateAttr
from torch import Tensor

from workbench.methods.base import Method, register
from workbench.tables import Rollouts


@register
class PosAdvReweight(Method):
    """Less weight on rewarded tokens while entropy is to be kept: tokens with A > 0 weigh λ ∈ [0, 1], all others 1.

        stage:    λ_k = max(0, (k − K/2) / (K/2)) in step k of K
        epoch:    λ = (e − 1) / (E − 1) in epoch e of E
        entropy:  λ_{k+1} = clip(λ_k − Δ, 0, 1) if H_k < target, else clip(λ_k + Δ, 0, 1)
        constant: λ = initial; 0 is "Adv<=0"

    arXiv 2511.05993 (S); there δ = 0.2 nats, Δ = 0.05, λ_0 = 0, E = 6, four updates per rollout. λ is constant within a
    rollout step and detached. The loss's denominator is not reweighted (I: the paper is silent). H_k is this step's
    rollout entropy (I). λ = 1 is the run without the method.
    """

    name: ClassVar[str] = "pos_adv_reweight"
    paper: ClassVar[str] = "2511.05993, schedules of λ"

    schedule: Literal["entropy", "stage", "epoch", "constant"] = Field("entropy", description="rule for λ")
    target: float = Field(0.2, ge=0, description="entropy: what to steer to, nats")
    delta: float = Field(0.05, ge=0, le=1, description="entropy: Δ, change of λ per rollout step")
    initial: float = Field(0.0, ge=0, le=1, description="entropy and constant: λ_0")
    epochs: int = Field(0, ge=0, description="epoch: E equal parts of the run; 0 takes its epochs over the prompts")

    _lambda: float = PrivateAttr(0.0)

    def model_post_init(self, _context) -> None:
        self._lambda = self.initial

    def begin(self, progress) -> None:
        super().begin(progress)
        if self.schedule == "stage":
            half = progress.steps / 2
            self._lambda = max(0.0, (progress.step - half) / half)
        elif self.schedule == "epoch":
            epoch, epochs = progress.epoch, progress.epochs
            if self.epochs:
                epoch, epochs = 1 + (progress.step - 1) * self.epochs // progress.steps, self.epochs
            self._lambda = (epoch - 1) / max(1, epochs - 1)

    def check(self, config) -> None:
        taken = config.training.steps * config.rollout.prompts
        if self.schedule == "epoch" and self.epochs == 0 and taken <= config.task.train_size:
            raise ValueError(
                "pos_adv_reweight.schedule 'epoch' in a run of a single epoch keeps λ at 0; set pos_adv_reweight.epochs"
            )

    def weight(self, batch: Rollouts, weight: Tensor) -> Tensor:
        return torch.where(batch.tokens.advantage > 0, weight * self._lambda, weight)

    def observe(self, measures: dict[str, float]) -> None:
        if self.schedule != "entropy":
            return
        change = -self.delta if measures["entropy/mean"] < self.target else self.delta
        self._lambda = min(1.0, max(0.0, self._lambda + change))

    def measures(self) -> dict[str, float]:
        return {"lambda": self._lambda}
