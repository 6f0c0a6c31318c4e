"""Positive and negative sample reinforcement: REINFORCE without a baseline."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from torch import Tensor

from workbench.methods.base import Method, register
from workbench.tables import Rollouts


@register
class Reinforce(Method):
    """A correct response counts +positive, an incorrect one −negative; no group statistics.

        A_i = positive if correct_i else −negative, the same for all tokens of response i

    arXiv 2506.01347 (S): PSR is (1, 0), NSR (0, 1), W-REINFORCE (0.1, 1). Responses that count 0 are dropped from the
    update, denominator included (S: "others dropped"). Nothing is differentiated.
    """

    name: ClassVar[str] = "reinforce"
    paper: ClassVar[str] = "2506.01347, PSR / NSR / W-REINFORCE"

    positive: float = Field(1.0, ge=0, description="advantage of correct responses")
    negative: float = Field(1.0, ge=0, description="minus the advantage of incorrect responses")

    def check(self, config) -> None:
        if self.positive == self.negative == 0:
            raise ValueError("reinforce.positive and reinforce.negative are both 0: nothing is trained; raise one")

    def baseline(self, rollouts: Rollouts) -> Tensor:
        reward = rollouts.sequences.reward
        counts = reward.new_tensor([-self.negative, self.positive])
        return counts[rollouts.sequences.correct.long()]

    def keep(self, rollouts: Rollouts, keep: Tensor) -> Tensor:
        return keep & (rollouts.sequences.advantage != 0)
