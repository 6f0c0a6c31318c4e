"""Relative length reward: among the correct responses of a solved prompt, shorter ones earn more."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from workbench.methods.base import Method, register
from workbench.tables import Rollouts


@register
class LengthReward(Method):
    """Correct responses of prompts solved often enough earn more when shorter than their group's correct ones.

        R_i += clip((L̄ − length_i)/base, low, high) for correct i, where g(q) ≥ threshold;  L̄ = mean correct length

    arXiv 2506.04913, RLR (S script: threshold 0.75, base 500 tokens, low −0.5, high 1; its defaults: 0.5, 1000, ±0.5).
    g is the group's share of correct responses. All-correct groups get a gradient from it; there the scale of the bonus
    cancels in a baseline that divides by the group's spread. With low > −1 a correct response stays above every
    incorrect one of reward 0. base .inf is the run without the method.
    """

    name: ClassVar[str] = "length_reward"
    paper: ClassVar[str] = "2506.04913, RLR"

    threshold: float = Field(0.75, ge=0, le=1, description="group accuracy from which lengths are compared")
    base: float = Field(500.0, gt=0, description="tokens of difference worth a reward of 1; .inf is off")
    low: float = Field(-0.5, le=0, description="smallest bonus")
    high: float = Field(1.0, ge=0, description="largest bonus")

    def cautions(self, config) -> list[str]:
        if self.low > -1 or math.isinf(self.base):
            return []
        return [f"length_reward.low is {self.low}: a long correct response can earn no more than an incorrect one"]

    def reward(self, rollouts: Rollouts, reward: Tensor) -> Tensor:
        if math.isinf(self.base):
            return reward
        correct, length = rollouts.sequences.correct, rollouts.sequences.length.to(reward.dtype)
        accuracy = rollouts.group_mean(correct.to(reward.dtype))
        mean = rollouts.group_mean(torch.where(correct, length, 0.0)) / accuracy
        bonus = ((mean - length) / self.base).clamp(self.low, self.high)
        return torch.where(correct & (accuracy >= self.threshold), reward + bonus, reward)
