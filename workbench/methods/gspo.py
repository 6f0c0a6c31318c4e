"""Sequence-level importance ratio (GSPO)."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from workbench.methods.base import Method, register
from workbench.tables import Rollouts, Table


@register
class Gspo(Method):
    """One ratio per response: the geometric mean of its tokens' ratios, clipped as a whole.

        s_i = exp(mean_t(log π − log π_old));  ratio_t = sg[s_i] · π_t / sg[π_t]

    so that every token of a response has the value s_i and the gradient s_i·∇log π_t. arXiv 2507.18071 eqs 5 and 7, in
    the token form of its released code (S veRL): clip 3·10⁻⁴ / 4·10⁻⁴, and the mean over sequences of token means: set
    `objective.denominator` to `sequences`. veRL's cap of the log-ratio at 10 is not taken over.
    """

    name: ClassVar[str] = "gspo"
    paper: ClassVar[str] = "2507.18071, eqs 5 and 7"

    low: float = Field(3e-4, ge=0, le=1, description="ε_low of the sequence ratio")
    high: float = Field(4e-4, ge=0, description="ε_high of the sequence ratio")

    def cautions(self, config) -> list[str]:
        found = []
        if config.objective.denominator != "sequences":
            found.append(f"gspo averages over sequences; objective.denominator is '{config.objective.denominator}'")
        if config.training.updates_per_rollout == 1:
            found.append("gspo's clip is inert: with training.updates_per_rollout 1 every ratio is 1")
        return found

    def clip(self, batch: Rollouts, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        return torch.full_like(low, self.low), torch.full_like(high, self.high)

    def ratio(self, tokens: Table, logp: Tensor) -> Tensor:
        count = int(tokens.sequence[-1]) + 1
        total, length = (
            torch.zeros(count, dtype=logp.dtype, device=logp.device).index_add_(0, tokens.sequence, values)
            for values in (logp.detach() - tokens.old_logp, torch.ones_like(tokens.old_logp))
        )
        return ((total / length)[tokens.sequence] + logp - logp.detach()).exp()
