"""Training on one sign of advantage only."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from workbench.methods.base import Method, register
from workbench.tables import Rollouts


@register
class SignMask(Method):
    """Only tokens with A ≥ 0, or only tokens with A ≤ 0, give a gradient.

    arXiv 2511.05993 (S), arms "Adv>=0" and "Adv<=0": weight 0 on the other sign. Whether those tokens leave the
    denominator is not stated: `denominator` chooses, and keeps them by default, as reweighting with λ = 0 does (I).
    """

    name: ClassVar[str] = "sign_mask"
    paper: ClassVar[str] = "2511.05993, Fig. 5"

    train: Literal["nonnegative", "nonpositive", "all"] = Field(
        "nonpositive", description="advantages that are trained"
    )
    denominator: Literal["all", "kept"] = Field("all", description="(I) tokens the loss is averaged over")

    def _kept(self, batch: Rollouts) -> Tensor:
        advantage = batch.tokens.advantage
        if self.train == "all":
            return torch.ones_like(advantage, dtype=torch.bool)
        return advantage >= 0 if self.train == "nonnegative" else advantage <= 0

    def mask(self, batch: Rollouts, mask: Tensor) -> Tensor:
        return mask & self._kept(batch) if self.denominator == "kept" else mask

    def weight(self, batch: Rollouts, weight: Tensor) -> Tensor:
        return torch.where(self._kept(batch), weight, 0.0)
