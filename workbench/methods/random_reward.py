"""Rewards drawn at random, whatever the response says."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from workbench.methods import statistics
from workbench.methods.base import Method, register
from workbench.tables import Rollouts

SALT = 11


@register
class RandomReward(Method):
    """The reward is a coin toss or a Gaussian number, independent of prompt and response: entropy without learning.

        bernoulli: R_i = 1 with probability p, else 0;   gaussian: R_i = mean + deviation · Φ⁻¹(u_i);   u_i ~ U[0, 1)

    arXiv 2509.26114 (S): Bernoulli(0.5), Figs 3 and 4, with Bernoulli(0.3), Bernoulli(0.7) and N(0, 1) as variants, at
    16 updates per rollout. The expected update being zero, what entropy does is due to clipping alone. u_i depends on
    seed, step, prompt and sample only. `correct` stays the verifier's verdict, so the metrics still tell how good the
    policy is. Law `none` is the run without the method.
    """

    name: ClassVar[str] = "random_reward"
    paper: ClassVar[str] = "2509.26114, Figs 3 and 4"

    law: Literal["bernoulli", "gaussian", "none"] = Field("bernoulli", description="distribution of the reward")
    p: float = Field(0.5, ge=0, le=1, description="bernoulli: probability of reward 1")
    mean: float = Field(0.0, description="gaussian: mean")
    deviation: float = Field(1.0, ge=0, description="gaussian: standard deviation")

    def cautions(self, config) -> list[str]:
        if self.law == "none" or config.training.updates_per_rollout > 1:
            return []
        return [
            "random_reward studies clipping, which never acts with training.updates_per_rollout 1; the paper takes 16"
        ]

    def reward(self, rollouts: Rollouts, reward: Tensor) -> Tensor:
        if self.law == "none":
            return reward
        lot = statistics.uniform(statistics.sequence_key(rollouts), self._now.seed, self._now.step, SALT)
        if self.law == "bernoulli":
            return (lot < self.p).to(reward.dtype)
        # Φ⁻¹(0) is −∞; the smallest draw above 0 is 2⁻⁵³.
        return (self.mean + self.deviation * torch.special.ndtri(lot.clamp(min=2.0**-54))).to(reward.dtype)
