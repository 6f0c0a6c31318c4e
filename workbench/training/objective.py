"""The loss of one optimiser step, on the token table.

    loss = Σ_{tokens in mask} ( weight · surrogate(ratio, advantage, clip) + Σ regularisers ) / denominator

Everything that is decided on the mini-batch as a whole (`prepare`) is decided before any micro-batch is differentiated,
and the denominator counts the whole mini-batch on all devices; so splitting a mini-batch changes nothing but rounding.
"""

from __future__ import annotations

import torch
from torch import Tensor

from workbench.config import ObjectiveConfig
from workbench.methods import Composition, statistics
from workbench.methods.ppo import ppo_clip
from workbench.tables import Rollouts, Table


def prepare(batch: Rollouts, methods: Composition, config: ObjectiveConfig, max_new_tokens: int) -> Rollouts:
    """Attach the constants of a mini-batch: `clip_low`, `clip_high`, `mask`, `weight`, the methods' marks and `share`,
    what each token's loss is multiplied by."""
    low, high = methods.clip(batch, config.clip_low, config.clip_high)
    batch = batch.with_tokens(clip_low=low, clip_high=high)
    batch = batch.with_tokens(mask=methods.mask(batch))
    batch = batch.with_tokens(weight=methods.weight(batch))
    batch = batch.with_tokens(**methods.mark(batch))
    return batch.with_tokens(share=token_share(batch, config.denominator, max_new_tokens))


def token_share(batch: Rollouts, denominator: str, max_new_tokens: int) -> Tensor:
    """What each token's loss is multiplied by [N]; over all devices, and 0 outside the token column `mask`:

    1 / (number of tokens); 1 / (sequences · tokens of its sequence), the mean over sequences of token means; or
    1 / (sequences · max_new_tokens), Dr. GRPO's constant (arXiv 2503.20783). Sequences without a token in the mask
    count in the last one alone.
    """
    mask = batch.tokens.mask.to(batch.tokens.advantage.dtype)
    if denominator == "tokens":
        return mask / statistics.total(mask).clamp(min=1)
    if denominator == "constant":
        return mask / (statistics.total(torch.ones_like(batch.sequences.length)) * max_new_tokens)
    count = batch.sum_by_sequence(mask)
    sequences = statistics.total(count > 0).clamp(min=1)
    return mask / (sequences * batch.broadcast_to_tokens(count.clamp(min=1)))


def token_loss(tokens: Table, ratio: Tensor, logp: Tensor, entropy: Tensor, methods: Composition) -> Tensor:
    """Loss per token [n] before the denominator; differentiable in ratio, logp and entropy."""
    surrogate = methods.surrogate(tokens, ratio, logp)
    if surrogate is None:
        surrogate = ppo_clip(tokens, ratio)
    loss = tokens.weight * surrogate
    regulariser = methods.regulariser(tokens, logp, entropy)
    return loss if regulariser is None else loss + regulariser
