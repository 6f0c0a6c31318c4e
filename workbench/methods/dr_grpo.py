"""Group-centred advantages (Dr. GRPO)."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from workbench.methods.base import Method, register
from workbench.methods.grpo import refuse_single_samples
from workbench.tables import Rollouts


@register
class DrGrpo(Method):
    """Rewards centred in the group and not divided by its spread.

        A_i = R_i − mean(R), the same for all tokens of response i

    arXiv 2503.20783 (S), whose loss divides by a constant instead of each response's length: set
    `objective.denominator` to `constant`. Nothing is differentiated.
    """

    name: ClassVar[str] = "dr_grpo"
    paper: ClassVar[str] = "2503.20783, Dr. GRPO"

    def check(self, config) -> None:
        refuse_single_samples(self.name, config)

    def cautions(self, config) -> list[str]:
        if config.objective.denominator == "constant":
            return []
        return [f"dr_grpo's loss divides by a constant; objective.denominator is '{config.objective.denominator}'"]

    def baseline(self, rollouts: Rollouts) -> Tensor:
        reward = rollouts.sequences.reward
        return (reward - rollouts.group_mean(reward)).masked_fill(rollouts.group_is_constant(reward), 0.0)
