"""The 80/20 rule: training on the tokens of highest entropy only."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

from pydantic import Field, PrivateAttr
from torch import Tensor

from workbench.methods import statistics
from workbench.methods.base import Method, register
from workbench.tables import Rollouts


@register
class HighEntropyMask(Method):
    """The loss is averaged over the ⌈fraction · N⌉ tokens of highest entropy; all others leave it.

    arXiv 2506.01939 (S code, K): on top of DAPO, fraction 0.2, entropy of the current policy, within the batch being
    trained on; here the whole mini-batch on all devices. The tokens that leave are in no denominator (S). `side` low
    trains on the lowest instead: with fraction 0.8 the paper's control (K). Detached. Fraction 1 is the run without the
    method.
    """

    name: ClassVar[str] = "high_entropy_mask"
    paper: ClassVar[str] = "2506.01939"

    fraction: float = Field(0.2, gt=0, le=1, description="share of tokens trained on; 1 is off")
    side: Literal["high", "low"] = Field("high", description="tokens of highest or of lowest entropy")

    _threshold: float | None = PrivateAttr(None)

    def needs(self) -> set[str]:
        return {"current"} if self.fraction < 1 else set()

    def mask(self, batch: Rollouts, mask: Tensor) -> Tensor:
        if self.fraction == 1:
            return mask
        entropy = batch.tokens.current_entropy
        count = math.ceil(self.fraction * float(statistics.total(mask)) - 1e-9)
        kept = statistics.largest(entropy if self.side == "high" else -entropy, count, batch, among=mask)
        if count:
            self._threshold = float(statistics.quantile(entropy, 0.0 if self.side == "high" else 1.0, kept))
        return kept

    def measures(self) -> dict[str, float]:
        """Entropy of the last token that is trained on, nats, in the step's last update."""
        return {} if self._threshold is None else {"threshold": self._threshold}
