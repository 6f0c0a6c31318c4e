"""Group-normalised advantages (GRPO)."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from torch import Tensor

from workbench.methods.base import Method, register
from workbench.tables import Rollouts


def refuse_single_samples(name: str, config) -> None:
    """Raise `ValueError` when groups have one response, so that there is nothing to compare."""
    if config.rollout.samples < 2:
        raise ValueError(f"rollout.samples is 1, but {name} compares responses of one group; use at least 2")


def group_normalised(rollouts: Rollouts, reward: Tensor, epsilon: float) -> Tensor:
    """(R_i − mean(R)) / (std(R) + ε) within each group, std unbiased, per sequence [S]; 0 where all R are equal."""
    centred = reward - rollouts.group_mean(reward)
    normalised = centred / (rollouts.group_std(reward) + epsilon)
    # Rounding of the mean would otherwise give a group of equal rewards advantages of its own, blown up by 1/ε.
    return normalised.masked_fill(rollouts.group_is_constant(reward), 0.0)


@register
class Grpo(Method):
    """Rewards normalised within the group of responses to one prompt.

        A_i = (R_i − mean(R)) / (std(R) + ε), the same for all tokens of response i

    arXiv 2402.03300, eq. for outcome supervision; std is the unbiased one and ε = 1e-6, as in veRL (arXiv 2511.05993
    does not say). A group whose rewards are all equal gives A = 0, hence no gradient. Nothing is differentiated.
    """

    name: ClassVar[str] = "grpo"
    paper: ClassVar[str] = "2402.03300, outcome supervision"

    epsilon: float = Field(1e-6, gt=0, description="added to the group's standard deviation")

    def check(self, config) -> None:
        refuse_single_samples(self.name, config)

    def baseline(self, rollouts: Rollouts) -> Tensor:
        return group_normalised(rollouts, rollouts.sequences.reward, self.epsilon)
