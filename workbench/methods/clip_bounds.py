"""Clip bounds with names: the variants whose effect on entropy the papers compare."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from workbench.methods.base import Method, register
from workbench.tables import Rollouts

OFF_LOW, OFF_HIGH = 1.0, math.inf


class ClipBounds(Method):
    """Bounds (ε_low, ε_high) in place of `objective.clip_low` and `objective.clip_high`.

    A token's gradient is cut where A < 0 and r < 1 − ε_low (clip-low), and where A > 0 and r > 1 + ε_high (clip-high).
    """

    low: float = Field(0.2, ge=0, le=1, description="ε_low; 1 switches clip-low off")
    high: float = Field(0.2, ge=0, description="ε_high; .inf switches clip-high off")

    def cautions(self, config) -> list[str]:
        if config.training.updates_per_rollout > 1:
            return []
        return [f"{self.name} is inert: with training.updates_per_rollout 1 every ratio is 1 and nothing is clipped"]

    def clip(self, batch: Rollouts, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        return torch.full_like(low, self.low), torch.full_like(high, self.high)


@register
class ClipHigher(ClipBounds):
    """ε_high = 0.28: rare rewarded tokens may grow further before their gradient is cut; entropy rises.

    arXiv 2503.14476 (DAPO) and 2511.05993 Fig. 3 (S): at four updates per rollout entropy ends at .53 instead of .017.
    """

    name: ClassVar[str] = "clip_higher"
    paper: ClassVar[str] = "2503.14476; 2511.05993, Fig. 3"
    high: float = Field(0.28, ge=0, description="ε_high; .inf switches clip-high off")


@register
class ClipLower(ClipBounds):
    """ε_low = 0.28: punished tokens may fall further before their gradient is cut; entropy falls.

    arXiv 2511.05993 Fig. 3 (S), "Clip-Lower": the bound 1 − ε_low is lower, ε_low is larger.
    """

    name: ClassVar[str] = "clip_lower"
    paper: ClassVar[str] = "2511.05993, Fig. 3"
    low: float = Field(0.28, ge=0, le=1, description="ε_low; 1 switches clip-low off")


@register
class ClipTighter(ClipBounds):
    """ε_low = 0.12: the gradient of punished tokens is cut earlier; entropy is kept longer.

    arXiv 2511.05993 Fig. 3 (S), "Clip-Tighter".
    """

    name: ClassVar[str] = "clip_tighter"
    paper: ClassVar[str] = "2511.05993, Fig. 3"
    low: float = Field(0.12, ge=0, le=1, description="ε_low; 1 switches clip-low off")


@register
class ClipFree(ClipBounds):
    """No clipping on either side: the surrogate is −r·A.

    arXiv 2511.05993 Fig. 3 (S), "Clip-Free".
    """

    name: ClassVar[str] = "clip_free"
    paper: ClassVar[str] = "2511.05993, Fig. 3"
    low: float = Field(OFF_LOW, ge=0, le=1, description="ε_low; 1 switches clip-low off")
    high: float = Field(OFF_HIGH, ge=0, description="ε_high; .inf switches clip-high off")


@register
class ClipLowOnly(ClipBounds):
    """Clip-high switched off: only punished tokens are ever cut; entropy rises, even under random rewards.

    arXiv 2509.26114 (S). Smaller ε_low is more clipping, hence more entropy.
    """

    name: ClassVar[str] = "clip_low_only"
    paper: ClassVar[str] = "2509.26114, Fig. 3"
    high: float = Field(OFF_HIGH, ge=0, description="ε_high; .inf switches clip-high off")


@register
class ClipHighOnly(ClipBounds):
    """Clip-low switched off: only rewarded tokens are ever cut; entropy falls, even under random rewards.

    arXiv 2509.26114 (S). Smaller ε_high is more clipping, hence less entropy.
    """

    name: ClassVar[str] = "clip_high_only"
    paper: ClassVar[str] = "2509.26114, Fig. 3"
    low: float = Field(OFF_LOW, ge=0, le=1, description="ε_low; 1 switches clip-low off")
