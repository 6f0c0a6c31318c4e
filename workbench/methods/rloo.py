"""Leave-one-out advantages (RLOO)."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from workbench.methods.base import Method, register
from workbench.methods.grpo import refuse_single_samples
from workbench.tables import Rollouts


@register
class Rloo(Method):
    """Each reward minus the mean reward of the group's other responses, an unbiased baseline.

        A_i = R_i − (Σ_{j≠i} R_j) / (G − 1) = (R_i − mean(R)) · G / (G − 1), the same for all tokens of response i

    arXiv 2402.14740 (K). Nothing is differentiated.
    """

    name: ClassVar[str] = "rloo"
    paper: ClassVar[str] = "2402.14740, RLOO"

    def check(self, config) -> None:
        refuse_single_samples(self.name, config)

    def baseline(self, rollouts: Rollouts) -> Tensor:
        reward = rollouts.sequences.reward
        size = rollouts.group_size()
        centred = (reward - rollouts.group_mean(reward)) * (size / (size - 1).clamp(min=1))
        return centred.masked_fill(rollouts.group_is_constant(reward), 0.0)
