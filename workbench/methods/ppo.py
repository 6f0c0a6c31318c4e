"""The surrogate of a run whose methods give no other, PPO's clip, and the variant with a second bound."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from workbench.methods.base import Method, register
from workbench.tables import Table


def ppo_clip(tokens: Table, ratio: Tensor) -> Tensor:
    """−min(r·A, clip(r, 1 − ε_low, 1 + ε_high)·A) per token [n] (arXiv 1707.06347 eq. 7).

    Differentiable in `ratio`; the gradient is zero where the clipped term is the smaller one.
    """
    clipped = torch.clamp(ratio, 1 - tokens.clip_low, 1 + tokens.clip_high)
    return -torch.minimum(ratio * tokens.advantage, clipped * tokens.advantage)


@register
class DualClip(Method):
    """PPO's clip with a second bound: a token with A < 0 stops counting once its ratio exceeds c.

        loss = min(−c·A, ppo_clip) where A < 0, ppo_clip elsewhere

    arXiv 1912.09729 eq. 5. veRL has it always on with c = 3, DAPO's scripts set c = 10 (S). c = ∞ is PPO's clip.
    """

    name: ClassVar[str] = "dual_clip"
    paper: ClassVar[str] = "1912.09729, eq. 5"

    c: float = Field(3.0, gt=1, description="largest ratio a token with A < 0 is weighted with; .inf is off")

    def cautions(self, config) -> list[str]:
        if math.isinf(self.c) or config.training.updates_per_rollout > 1:
            return []
        return ["dual_clip is inert: with training.updates_per_rollout 1 every ratio is 1"]

    def surrogate(self, tokens: Table, ratio: Tensor, logp: Tensor) -> Tensor | None:
        if math.isinf(self.c):
            return None
        loss = ppo_clip(tokens, ratio)
        return torch.where(tokens.advantage < 0, torch.minimum(-self.c * tokens.advantage, loss), loss)
