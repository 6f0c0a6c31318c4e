"""The loss of one optimiser step, on the token table.

    loss = Σ_tokens ( weight · surrogate(logp, old_logp, advantage, clip) + Σ regularisers ) / denominator

The denominator is counted over the whole optimiser step, never per micro-batch, so that splitting a mini-batch into
micro-batches changes nothing but rounding.
"""

from __future__ import annotations

import torch
from torch import Tensor

from workbench.config import ObjectiveConfig
from workbench.methods import Composition
from workbench.tables import Rollouts, Table


def ppo_clip(tokens: Table, logp: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """−min(r·A, clip(r, 1 − ε_low, 1 + ε_high)·A) per token [n], r = exp(logp − old_logp) (arXiv 1707.06347 eq. 7).

    Differentiable in `logp`; the gradient is zero where the clipped term is the smaller one.
    """
    ratio = (logp - tokens.old_logp).exp()
    clipped = torch.clamp(ratio, 1 - low, 1 + high)
    return -torch.minimum(ratio * tokens.advantage, clipped * tokens.advantage)


def kl_k3(logp: Tensor, ref_logp: Tensor) -> Tensor:
    """Schulman's k3 estimate of KL(π‖π_ref) per token, e^d − d − 1, d = ref_logp − logp: unbiased, never negative."""
    d = ref_logp - logp
    return d.exp() - d - 1


def prepare(rollouts: Rollouts, methods: Composition, config: ObjectiveConfig) -> Rollouts:
    """Attach what must be decided on the whole mini-batch at once: the constants `clip_low`, `clip_high`, `weight`."""
    tokens = rollouts.tokens
    low, high = methods.clip(tokens, config.clip_low, config.clip_high)
    columns = {"clip_low": low, "clip_high": high, "weight": methods.weight(tokens)}
    return Rollouts(rollouts.prompts, rollouts.sequences, tokens.with_columns(**columns))


def token_share(rollouts: Rollouts, denominator: str, max_new_tokens: int) -> Tensor:
    """What each token's loss is multiplied by [N] fp32: 1 / (number of tokens); 1 / (sequences · its length), the mean
    over sequences of token means; or 1 / (sequences · max_new_tokens), Dr. GRPO's constant (arXiv 2503.20783)."""
    sequences, count = len(rollouts.sequences), len(rollouts.tokens)
    if denominator == "sequences":
        return 1.0 / (sequences * rollouts.broadcast_to_tokens(rollouts.sequences.length))
    size = count if denominator == "tokens" else sequences * max_new_tokens
    return torch.full((count,), 1.0 / size, device=rollouts.tokens.token.device)


def token_loss(tokens: Table, logp: Tensor, entropy: Tensor, methods: Composition, config: ObjectiveConfig) -> Tensor:
    """Loss per token [n] before the denominator; differentiable in logp and entropy."""
    surrogate = methods.surrogate(tokens, logp, tokens.clip_low, tokens.clip_high)
    if surrogate is None:
        surrogate = ppo_clip(tokens, logp, tokens.clip_low, tokens.clip_high)
    loss = tokens.weight * surrogate
    regulariser = methods.regulariser(tokens, logp, entropy)
    if regulariser is not None:
        loss = loss + regulariser
    if config.kl_coefficient:
        loss = loss + config.kl_coefficient * kl_k3(logp, tokens.ref_logp)
    return loss
