"""Truncated importance sampling for the mismatch between sampler and trainer."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from workbench.methods.base import Method, register
from workbench.tables import Rollouts


@register
class Tis(Method):
    """Weighs each token by how much likelier the trainer's policy finds it than the distribution it was sampled from.

        w = π_old / π_rollout of the token; of its response (product); or of its response's geometric mean
        truncate: weight clip(w, floor, cap);  mask: weight 1 if floor ≤ w ≤ cap else 0

    Detached. With cap 2 and truncation as in veRL and "Your efficient RL framework secretly brings you off-policy RL
    training" (S veRL: token cap 1.5–5, sequence 2–10, geometric band .999–1.001). It corrects other engines, other
    precision, nucleus sampling and prompts sampled hotter than they are trained; where the two distributions agree it
    does nothing.
    """

    name: ClassVar[str] = "tis"
    paper: ClassVar[str] = "veRL, rollout correction"

    level: Literal["token", "sequence", "geometric"] = Field("token", description="what the weight is computed of")
    mode: Literal["truncate", "mask"] = Field("truncate", description="bound the weight, or drop what is out of bounds")
    cap: float = Field(2.0, ge=1, description="largest weight; .inf is no bound")
    floor: float = Field(0.0, ge=0, le=1, description="smallest weight")

    def needs(self) -> set[str]:
        return {"old_logp"}

    def cautions(self, config) -> list[str]:
        if config.training.old_logp == "trainer":
            return []
        return ["tis is inert: training.old_logp 'rollout' takes the sampler's log-probs, so all weights are 1"]

    def weight(self, batch: Rollouts, weight: Tensor) -> Tensor:
        gap = batch.tokens.old_logp - batch.tokens.rollout_logp
        if self.level != "token":
            per_sequence = batch.sum_by_sequence(gap)
            if self.level == "geometric":
                per_sequence = per_sequence / batch.sequences.length
            gap = batch.broadcast_to_tokens(per_sequence)
        importance = gap.exp()
        if self.mode == "truncate":
            return weight * importance.clamp(self.floor, None if math.isinf(self.cap) else self.cap)
        inside = (importance >= self.floor) & (importance <= self.cap)
        return torch.where(inside, weight, 0.0)
