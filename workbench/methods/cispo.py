"""Clipped importance weights in front of log π (CISPO)."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from workbench.methods.base import Method, register
from workbench.tables import Rollouts, Table


@register
class Cispo(Method):
    """The ratio is clipped as a constant weight of REINFORCE, so that no token loses its gradient.

        loss_t = −sg[clip(r_t, 1 − ε_low, 1 + ε_high)] · A_t · log π_t

    arXiv 2506.13585 (S veRL, K): the paper has no effective lower bound and tunes ε_high; its value is not given,
    later work uses about 4 to 5 (K). veRL and NeMo clamp on both sides, TRL above only, with ε_high itself as the cap.
    """

    name: ClassVar[str] = "cispo"
    paper: ClassVar[str] = "2506.13585, CISPO"

    low: float = Field(1.0, ge=0, le=1, description="ε_low; 1 is no lower bound, as published")
    high: float = Field(4.0, ge=0, description="(K) ε_high: weights are at most 1 + ε_high; .inf is no bound")

    def cautions(self, config) -> list[str]:
        if math.isinf(self.high) or config.training.updates_per_rollout > 1:
            return []
        return ["cispo's bounds are inert: with training.updates_per_rollout 1 every ratio is 1"]

    def clip(self, batch: Rollouts, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        return torch.full_like(low, self.low), torch.full_like(high, self.high)

    def surrogate(self, tokens: Table, ratio: Tensor, logp: Tensor) -> Tensor:
        weight = torch.clamp(ratio.detach(), 1 - tokens.clip_low, 1 + tokens.clip_high)
        return -weight * tokens.advantage * logp
