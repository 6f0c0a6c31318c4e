"""Entropy-shaped advantages."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from workbench.methods.base import Method, register
from workbench.tables import Rollouts


@register
class EntropyAdv(Method):
    """Adds a bounded share of the token's entropy to its advantage.

        A'_t = A_t + min(α·H_t, |A_t| / κ), with H_t of the policy before the step's updates, detached

    arXiv 2506.14758 (K: α = 0.4 for GRPO, 0.1 for PPO, κ = 2; the detach and the cap are S): the sign of A is kept
    (κ ≥ 1), positive advantages grow and negative ones shrink. No gradient flows through H, so this is no entropy
    bonus: arXiv 2511.05993 finds that entropy collapses faster.
    """

    name: ClassVar[str] = "entropy_adv"
    paper: ClassVar[str] = "2506.14758"

    alpha: float = Field(0.4, ge=0, description="α: advantage per nat; 0 is off")
    kappa: float = Field(2.0, ge=1, description="κ: the bonus is at most |A|/κ")

    def needs(self) -> set[str]:
        return {"old_logp"} if self.alpha else set()

    def advantage(self, rollouts: Rollouts, advantage: Tensor) -> Tensor:
        if not self.alpha:
            return advantage
        return advantage + torch.minimum(self.alpha * rollouts.tokens.entropy, advantage.abs() / self.kappa)
