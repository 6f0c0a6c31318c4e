"""STEER: less weight on the tokens whose update would change entropy most."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
from pydantic import Field, PrivateAttr
from torch import Tensor

from workbench.methods import statistics
from workbench.methods.base import Method, register
from workbench.tables import Rollouts


@register
class Steer(Method):
    """Weights from each token's first-order change of entropy, Ω_t = A_t/π_old · π(1 − π)(log π + H_t).

        exponential: w = clip(e^{−k·|Ω|}, lowest, 1), k = −log(lowest)/max(max |Ω|, 0.02)
        linear:      w = 1.2 − 0.4·(|Ω| − min |Ω|)/(max |Ω| − min |Ω|)

    arXiv 2510.10150 (S code: lowest 0.8; linear between 1.2 and 0.8). π and H are the current policy's, max and min are
    over the tokens in the loss of the whole mini-batch (the code's: over the micro-batch). Everything is detached; a
    dual clip of 10 comes with it in the scripts (add dual_clip). `lowest` 1 is the run without the method.
    """

    name: ClassVar[str] = "steer"
    paper: ClassVar[str] = "2510.10150"

    map: Literal["exponential", "linear"] = Field("exponential", description="from |Ω| to the weight")
    lowest: float = Field(0.8, gt=0, le=1, description="smallest weight; linear: the largest is 2 − lowest; 1 is off")

    _measures: dict[str, float] = PrivateAttr(default_factory=dict)

    def needs(self) -> set[str]:
        return {"current"} if self.lowest < 1 else set()

    def weight(self, batch: Rollouts, weight: Tensor) -> Tensor:
        mask = batch.tokens.mask
        if self.lowest == 1 or not statistics.total(mask):
            return weight
        change = entropy_change(batch).abs()
        bottom, top = (float(statistics.quantile(change, q, mask)) for q in (0.0, 1.0))
        if self.map == "exponential":
            own = (math.log(self.lowest) / max(top, 0.02) * change).exp().clamp(self.lowest, 1.0)
        else:
            place = (change - bottom) / (top - bottom) if top > bottom else torch.zeros_like(change)
            own = 2 - self.lowest - 2 * (1 - self.lowest) * place
        self._measures = {"largest_change": top, "mean_weight": float(statistics.mean(own, mask))}
        return weight * own

    def measures(self) -> dict[str, float]:
        """max |Ω| and the mean of w over the tokens in the loss, in the step's last update."""
        return dict(self._measures)


def entropy_change(batch: Rollouts) -> Tensor:
    """Ω per token [N], up to the step size and its sign."""
    tokens = batch.tokens
    p = tokens.logp.exp()
    return tokens.advantage * (-tokens.old_logp).exp() * p * (1 - p) * (tokens.logp + tokens.current_entropy)
