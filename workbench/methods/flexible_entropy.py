"""Flexible entropy control: clip bounds that depend on how likely a token was, on a schedule."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field, PrivateAttr
from torch import Tensor

from workbench.methods import statistics
from workbench.methods.base import Method, register
from workbench.tables import Rollouts


@register
class FlexibleEntropy(Method):
    """ε depends on p = π_old: a bound loose for rare and tight for likely tokens raises entropy above, lowers it below.

        f(p) = intercept − slope·p, for ε_high (f) and for ε_low (g);  λ = 1 − 2k/T in step k of T
        id:   first half ε_high = λ·f + (1 − λ)·std;   second half ε_low = (1 + λ)·g − λ·std
        did:  first half ε_high = λ·std + (1 − λ)·f;   second half ε_high = f, ε_low = (1 + λ)·g − λ·std
        od:   ε_high = f from H ≤ low until H > high, then ε_low = g until H ≤ low;
              low = low_share·H_0, high = low + (H_0 − low)(1 − k/T)

    arXiv 2602.09782 (S author's blog; the repository is empty), "increase-decrease", "decrease-increase-decrease" and
    "oscillate": std = 0.2, low_share = 0.2; a bound that is not named is std. Intercept and slope were not seen:
    0.4 − 0.3·p, the same for g (I). A > 0 likely and A < 0 rare tokens lower entropy, the others raise it, which is
    what the shape of the bounds uses. H is the rollout batch's entropy, H_0 the first step's; od starts by lowering
    (I). Bounds are detached. `slope` 0 with `intercept` 0.2 is PPO's clip at 0.2.
    """

    name: ClassVar[str] = "flexible_entropy"
    paper: ClassVar[str] = "2602.09782, ID / DID / OD"

    schedule: Literal["id", "did", "od"] = Field("id", description="when which bound is flexible")
    intercept: float = Field(0.4, gt=0, description="(I) bound of a token of probability 0")
    slope: float = Field(0.3, ge=0, description="(I) how much tighter it is for probability 1")
    standard: float = Field(0.2, ge=0, le=1, description="std: the bound that is not flexible")
    low_share: float = Field(0.2, ge=0, lt=1, description="od: lower threshold as a share of the initial entropy")

    _initial: float | None = PrivateAttr(None)
    _raising: bool = PrivateAttr(False)

    def check(self, config) -> None:
        if self.intercept < self.slope:
            raise ValueError(
                f"flexible_entropy.slope ({self.slope}) exceeds flexible_entropy.intercept ({self.intercept}): likely "
                "tokens would get a negative bound; change either"
            )
        if self.intercept > 1:
            raise ValueError("flexible_entropy.intercept is also ε_low of a rare token, which is at most 1; lower it")

    def cautions(self, config) -> list[str]:
        if config.training.updates_per_rollout > 1:
            return []
        return ["flexible_entropy is inert: with training.updates_per_rollout 1 every ratio is 1, nothing is clipped"]

    def needs(self) -> set[str]:
        return {"old_logp"}

    def look(self, rollouts: Rollouts) -> None:
        entropy = float(statistics.mean(rollouts.tokens.entropy))
        if self._initial is None:
            self._initial = entropy
        low = self.low_share * self._initial
        high = low + (self._initial - low) * (1 - self._now.step / self._now.steps)
        self._raising = entropy <= high if self._raising else entropy <= low

    def clip(self, batch: Rollouts, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        flexible = self.intercept - self.slope * batch.tokens.old_logp.exp()
        standard = torch.full_like(flexible, self.standard)
        progress = 1 - 2 * self._now.step / self._now.steps
        if self.schedule == "od":
            return (standard, flexible) if self._raising else (flexible, standard)
        if progress >= 0:
            share = progress if self.schedule == "id" else 1 - progress
            return standard, standard + share * (flexible - standard)
        above = flexible if self.schedule == "did" else standard
        return standard + (1 + progress) * (flexible - standard), above

    def measures(self) -> dict[str, float]:
        return {"raising": float(self._raising)}
