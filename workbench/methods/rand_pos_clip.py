"""Random positive clipping: the control for covariance clipping."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from torch import Tensor

from workbench.methods import statistics
from workbench.methods.base import Method, register
from workbench.tables import Rollouts

SALT = 1


@register
class RandPosClip(Method):
    """Zeroes the gradient of a uniformly random subset of the tokens with A > 0.

        n = max(1, ⌊fraction · N⌋) of the mini-batch's N tokens, drawn among those with A > 0

    arXiv 2511.05993 (S): the same proportion of tokens as Clip-Cov zeroes; that proportion is veRL's default for
    Clip-Cov, 2·10⁻⁴ (I). The tokens stay in the denominator.
    """

    name: ClassVar[str] = "rand_pos_clip"
    paper: ClassVar[str] = "2511.05993, Fig. 5"

    fraction: float = Field(2e-4, ge=0, le=1, description="(I) share of all tokens whose gradient is zeroed; 0 is off")

    def weight(self, batch: Rollouts, weight: Tensor) -> Tensor:
        if not self.fraction:
            return weight
        mask = batch.tokens.mask
        count = max(1, int(self.fraction * statistics.total(mask)))
        now = self._now
        lot = statistics.uniform(statistics.token_key(batch), now.seed, now.step, now.update, SALT)
        zeroed = statistics.largest(lot, count, batch, among=mask & (batch.tokens.advantage > 0))
        return weight.masked_fill(zeroed, 0.0)
