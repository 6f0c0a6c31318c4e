"""Covariance clipping: no gradient for a few of the tokens that drive entropy down."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from torch import Tensor

from workbench.methods import statistics
from workbench.methods.base import Method, register
from workbench.tables import Rollouts

SALT = 2


def covariance(batch: Rollouts) -> Tensor:
    """c_t = (A_t − mean A)·(log π_t − mean log π) per token [N], means over the tokens of the mini-batch's loss on all
    devices; π is the current policy (arXiv 2505.22617)."""
    tokens = batch.tokens
    advantage, logp = (x - statistics.mean(x, tokens.mask).to(x.dtype) for x in (tokens.advantage, tokens.logp))
    return advantage * logp


def already_clipped(batch: Rollouts) -> Tensor:
    """Mask [N] of the tokens whose gradient PPO's clip cuts at the current policy."""
    tokens = batch.tokens
    ratio = (tokens.logp - tokens.old_logp).exp()
    low = (tokens.advantage < 0) & (ratio < 1 - tokens.clip_low)
    return low | ((tokens.advantage > 0) & (ratio > 1 + tokens.clip_high))


@register
class ClipCov(Method):
    """Zeroes the gradient of random tokens whose covariance of log-prob and advantage lies in a band.

        candidates: tokens with low < c_t < high that PPO does not clip; n = max(1, ⌊fraction · N⌋) of them at random

    arXiv 2505.22617 (S code): band (1, 5), fraction 2·10⁻⁴; PPO's clip stays on in veRL and in arXiv 2511.05993, the
    authors' scripts switch it off (add clip_free). c_t and the selection are detached, made over the whole mini-batch
    (veRL selects per micro-batch), and the tokens stay in the denominator.
    """

    name: ClassVar[str] = "clip_cov"
    paper: ClassVar[str] = "2505.22617, Clip-Cov"

    fraction: float = Field(2e-4, ge=0, le=1, description="share of all tokens whose gradient is zeroed; 0 is off")
    low: float = Field(1.0, description="lower end of the covariance band")
    high: float = Field(5.0, description="upper end of the covariance band; .inf is none")

    def check(self, config) -> None:
        if not self.low < self.high:
            raise ValueError(f"clip_cov.low ({self.low}) must be below clip_cov.high ({self.high}); change either")

    def needs(self) -> set[str]:
        return {"current"} if self.fraction else set()

    def weight(self, batch: Rollouts, weight: Tensor) -> Tensor:
        if not self.fraction:
            return weight
        cov = covariance(batch)
        candidates = batch.tokens.mask & (cov > self.low) & (cov < self.high) & ~already_clipped(batch)
        count = max(1, int(self.fraction * statistics.total(batch.tokens.mask)))
        now = self._now
        lot = statistics.uniform(statistics.token_key(batch), now.seed, now.step, now.update, SALT)
        return weight.masked_fill(statistics.largest(lot, count, batch, among=candidates), 0.0)
