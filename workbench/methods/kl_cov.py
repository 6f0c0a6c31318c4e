"""KL-Cov: a KL penalty on the tokens that drive entropy down."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from workbench.methods import statistics
from workbench.methods.base import Method, register
from workbench.methods.clip_cov import covariance
from workbench.methods.kl_reference import kl_estimate
from workbench.tables import Rollouts, Table


@register
class KlCov(Method):
    """loss += coefficient · |log π − log π_old| on the tokens of largest covariance of log-prob and advantage.

        n = max(1, ⌊fraction · N⌋) tokens with the largest c_t = (A_t − mean A)(log π_t − mean log π)

    arXiv 2505.22617 (S code): fraction 2·10⁻³ for 7B, 2·10⁻⁴ for 32B, coefficient 1 (veRL: 2·10⁻⁴ and 0.1); the
    surrogate is −r·A without any clip. Selection is detached and made over the whole mini-batch (veRL and the authors
    select per micro-batch); the gradient flows through |log π − log π_old|, whose subgradient at 0 is 0, so the first
    update of a rollout step is not penalised.
    """

    name: ClassVar[str] = "kl_cov"
    paper: ClassVar[str] = "2505.22617, KL-Cov"

    fraction: float = Field(2e-3, ge=0, le=1, description="share of all tokens that are penalised; 0 is off")
    coefficient: float = Field(1.0, ge=0, description="weight of the penalty")
    ppo_clip: Literal["off", "objective"] = Field("off", description="PPO clip: off as published, or as configured")

    def exclusive(self) -> set[str]:
        return {"clip"} if self.ppo_clip == "off" else set()

    def needs(self) -> set[str]:
        return {"current"} if self.fraction else set()

    def check(self, config) -> None:
        if config.training.updates_per_rollout < 2:
            raise ValueError(
                "kl_cov penalises |log π − log π_old|, which is 0 with training.updates_per_rollout 1; use at least 2"
            )

    def clip(self, batch: Rollouts, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        if self.ppo_clip == "objective":
            return low, high
        return torch.ones_like(low), torch.full_like(high, math.inf)

    def mark(self, batch: Rollouts) -> dict[str, Tensor]:
        if not self.fraction:
            return {}
        mask = batch.tokens.mask
        count = max(1, int(self.fraction * statistics.total(mask)))
        return {"kl_cov_selected": statistics.largest(covariance(batch), count, batch, among=mask)}

    def regulariser(self, tokens: Table, logp: Tensor, entropy: Tensor) -> Tensor | None:
        if not self.fraction:
            return None
        penalty = kl_estimate(logp, tokens.old_logp, "abs")
        return torch.where(tokens.kl_cov_selected, self.coefficient * penalty, 0.0)
