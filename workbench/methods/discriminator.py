"""Entropy control by the discriminator S of arXiv 2602.03392: Clip_B, Clip_V, and the four arms of its sign test."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
from pydantic import Field, PrivateAttr
from torch import Tensor

from workbench.config import TASKS
from workbench.methods import statistics
from workbench.methods.base import Method, register
from workbench.tables import Rollouts, Table

PAPER = "2602.03392"


def discriminator(tokens: Table) -> Tensor:
    """S = p·(H + log p) of each sampled token [N], of the policy before the step's updates (Theorem 3.2).

    Raising the token's logit by ε changes entropy by −ε·S to first order; sign(S) = sign(p − e^{−H}). A GRPO step of
    size α on it changes entropy by −α·(S − E[S]) (Theorem 3.3), E[S] the column `expected_discriminator`.
    """
    return tokens.old_logp.exp() * (tokens.entropy + tokens.old_logp)


class TokenFilter(Method):
    """Takes tokens out of the loss and its denominator, and says how many."""

    _removed: float = PrivateAttr(0.0)

    def _without(self, batch: Rollouts, mask: Tensor, removed: Tensor) -> Tensor:
        self._removed = float(statistics.mean(removed, mask)) if statistics.total(mask) else 0.0
        return mask & ~removed

    def measures(self) -> dict[str, float]:
        """Share of the tokens removed, in the step's last update."""
        return {"removed_fraction": self._removed}


@register
class ClipB(TokenFilter):
    """Clip_B: punished tokens far below the batch's mean discriminator are left out of the loss.

        removed: A < 0 and S − mean(S) < −μ·std(S), mean and population deviation over the mini-batch's tokens

    arXiv 2602.03392 (S, released code: μ = 2.5, swept 2 to 3; tokens with A ≥ 0 all stay; removed tokens leave the
    denominator). Such a token is rare, and punishing it lowers entropy. The statistics span the mini-batch being
    trained on; the paper's batch, with one update per rollout (I). Detached. μ = ∞ is the run without the method.

    How far below the mean S reaches depends on the policy. On the bundled one, before training, it ends at 1.7
    deviations: μ = 2.5 removes nothing there, 1.25 about half a percent of the tokens.
    """

    name: ClassVar[str] = "clip_b"
    paper: ClassVar[str] = f"{PAPER}, Clip_B"

    mu: float = Field(2.5, gt=0, description="μ: standard deviations below the mean; .inf is off")

    def needs(self) -> set[str]:
        return {"old_logp"}

    def mask(self, batch: Rollouts, mask: Tensor) -> Tensor:
        s = discriminator(batch.tokens)
        spread = float(statistics.std(s, mask))
        if not spread >= 1e-12:  # nothing to tell apart, or no token at all
            return self._without(batch, mask, torch.zeros_like(mask))
        low = float(statistics.mean(s, mask)) - self.mu * spread
        return self._without(batch, mask, (batch.tokens.advantage < 0) & (s < low))


@register
class ClipV(TokenFilter):
    """Clip_V: punished tokens whose update would lower entropy most are left out of the loss.

        D = E[S] − S;   removed: A ≤ 0 and D > μ·std(D);
        if these are more than max_fraction·N: the ⌊max_fraction·N⌋ tokens of largest D with A < 0 instead

    arXiv 2602.03392 (S, released code: μ = 8.5, swept 7.5 to 8.5, max_fraction 10⁻⁴; std is the population deviation
    about the mean, D is compared uncentred; removed tokens leave the denominator, those with A = 0 change nothing
    else). The statistics span the mini-batch being trained on (I). Detached. μ = ∞ is the run without the method.

    ⌊max_fraction·N⌋ is 0 for mini-batches under 10⁴ tokens: smaller runs need a larger fraction. On the bundled policy,
    before training, D ends at 6 deviations: μ = 8.5 finds nothing there, 4 about 1.5 % of the tokens.
    """

    name: ClassVar[str] = "clip_v"
    paper: ClassVar[str] = f"{PAPER}, Clip_V"

    mu: float = Field(8.5, gt=0, description="μ: standard deviations of D; .inf is off")
    max_fraction: float = Field(1e-4, ge=0, le=1, description="largest share of tokens removed")

    def needs(self) -> set[str]:
        return {"old_logp", "expected_discriminator"} if self._acts() else set()

    def cautions(self, config) -> list[str]:
        rollout, task = config.rollout, TASKS.get(config.task.name)
        longest = rollout.max_new_tokens or getattr(task, "max_response_tokens", math.inf)
        most = rollout.prompts * rollout.samples * longest / config.training.updates_per_rollout
        if not self._acts() or self.max_fraction * most >= 1:
            return []
        return [
            f"clip_v is inert: clip_v.max_fraction {self.max_fraction:g} of the at most {most:g} tokens of an update "
            "is less than one; raise it"
        ]

    def _acts(self) -> bool:
        return self.max_fraction > 0 and math.isfinite(self.mu)

    def mask(self, batch: Rollouts, mask: Tensor) -> Tensor:
        if not self._acts():
            return mask
        tokens = batch.tokens
        gap = tokens.expected_discriminator - discriminator(tokens)
        removed = mask & (tokens.advantage <= 0) & (gap > self.mu * statistics.std(gap, mask))
        allowed = self.max_fraction * float(statistics.total(mask))
        if statistics.total(removed) > allowed:
            removed = statistics.largest(gap, int(allowed), batch, among=mask & (tokens.advantage < 0))
        return self._without(batch, mask, removed)


@register
class DiscriminatorArms(TokenFilter):
    """The sign test: rewarded and punished tokens are trained on by the sign of their discriminator.

        above: S > 0, that is p > e^{−H};   below: S < 0

    arXiv 2602.03392 (S, secondary): of rewarded tokens, `above` alone lets entropy fall and `below` alone lets it rise;
    of punished tokens the other way round. The tokens left out stay in no denominator (I). Detached.
    """

    name: ClassVar[str] = "discriminator_arms"
    paper: ClassVar[str] = f"{PAPER}, sign test"

    positive: Literal["all", "above", "below", "none"] = Field("all", description="tokens with A > 0 that are trained")
    negative: Literal["all", "above", "below", "none"] = Field("all", description="tokens with A < 0 that are trained")

    def needs(self) -> set[str]:
        return {"old_logp"}

    def check(self, config) -> None:
        if self.positive == self.negative == "none":
            raise ValueError("discriminator_arms trains no token with both arms 'none'; change one")

    def cautions(self, config) -> list[str]:
        if self.positive == self.negative == "all":
            return [
                "discriminator_arms is inert with both arms 'all'; set positive or negative to above, below or none"
            ]
        return []

    def mask(self, batch: Rollouts, mask: Tensor) -> Tensor:
        s, advantage = discriminator(batch.tokens), batch.tokens.advantage
        arms = {"all": torch.ones_like(mask), "above": s > 0, "below": s < 0, "none": torch.zeros_like(mask)}
        removed = (advantage > 0) & ~arms[self.positive] | (advantage < 0) & ~arms[self.negative]
        return self._without(batch, mask, removed)
