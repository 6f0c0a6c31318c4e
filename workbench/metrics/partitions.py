"""Ways to divide a batch's tokens into classes, shared by levels of entropy and by contributions to its change.

A class is a number per token [N] int64; the names are in order of the numbers.
"""

from __future__ import annotations

import torch
from torch import Tensor

from workbench.tables import Rollouts, Table

DECILES = 10
SIGNS = ("negative", "zero_advantage", "positive")
QUADRANTS = ("negative_unlikely", "negative_likely", "zero_advantage", "positive_unlikely", "positive_likely")
CLIPPING = ("clipped_low", "clipped_high", "unclipped", "outside")
QUADRANT_DEFINITION = "sign of the token's advantage × whether π_old ≥ e^{−H} (likely) or not (unlikely)"


def sign_class(tokens: Table) -> Tensor:
    """Class of `SIGNS` by the token's advantage."""
    return tokens.advantage.sign().long() + 1


def quadrant_class(tokens: Table) -> Tensor:
    """Class of `QUADRANTS`: sign of the advantage × probability of the token.

    The border is π_old = e^{−H}, H the entropy there: the token whose reward lowers entropy to first order from the one
    whose reward raises it, sign(S) = sign(π − e^{−H}) (arXiv 2602.03392, Theorem 3.2 (S)). The quadrants of arXiv
    2511.15248 have no stated border; its controller acts above π = 0.95 (S), a border that leaves nearly all tokens of
    low entropy on one side. Tokens without advantage form the fifth class.
    """
    likely = (tokens.old_logp >= -tokens.entropy).long()
    sign = tokens.advantage.sign()
    return torch.where(sign == 0, 2, torch.where(sign > 0, 3 + likely, likely))


def clip_class(tokens: Table) -> Tensor:
    """Class of `CLIPPING` at the moment the token was trained on.

    clipped_low: A < 0 and ratio < 1 − ε_low; clipped_high: A > 0 and ratio > 1 + ε_high (no gradient through the PPO
    surrogate, either way); unclipped: the other tokens of the loss; outside: in no update, or of weight 0.
    """
    low, high = clipped(tokens)
    outside = tokens.logp.isnan()
    if "weight" in tokens:
        outside |= tokens.weight == 0
    label = torch.full_like(tokens.sequence, CLIPPING.index("unclipped"))
    label[low], label[high], label[outside] = 0, 1, CLIPPING.index("outside")
    return label


def clipped(tokens: Table) -> tuple[Tensor, Tensor]:
    """Masks [N] of the tokens beyond the lower and the upper clip bound on the side where it cuts the gradient."""
    ratio = importance_ratio(tokens)
    low = (tokens.advantage < 0) & (ratio < 1 - tokens.clip_low)
    return low, (tokens.advantage > 0) & (ratio > 1 + tokens.clip_high)


def importance_ratio(tokens: Table) -> Tensor:
    """The ratio the surrogate used [N]; π/π_old where none was stored."""
    return tokens.ratio if "ratio" in tokens else (tokens.logp - tokens.old_logp).exp()


def decile_class(rollouts: Rollouts) -> Tensor:
    """⌊10 · position / length⌋: where in its response a token stands, 0 … 9."""
    length = rollouts.broadcast_to_tokens(rollouts.sequences.length)
    return rollouts.tokens.position * DECILES // length


def discriminator(tokens: Table) -> Tensor:
    """S = π_old (H + log π_old) of each sampled token [N] (arXiv 2602.03392, Theorem 3.2)."""
    return tokens.old_logp.exp() * (tokens.entropy + tokens.old_logp)


def discriminator_gap(tokens: Table) -> Tensor:
    """S − E[S] [N], the mean over the vocabulary taken out (arXiv 2602.03392, Theorem 3.3)."""
    return discriminator(tokens) - tokens.expected_discriminator
