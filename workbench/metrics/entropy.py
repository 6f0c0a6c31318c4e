"""Levels of entropy in a rollout batch, before the step's updates.

Entropy is always the exact full-vocabulary entropy in nats at the sampling temperature, averaged over response tokens:
one definition, whatever the loss does.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from workbench.metrics import partitions, token_classes
from workbench.metrics.registry import Metric, Registry, masked_mean, means_by_class
from workbench.tables import Rollouts

ENTROPY = Registry()
PUBLISHED_P80 = 0.672
"""80th percentile of token entropy, nats, reported for Qwen3-8B by arXiv 2506.01939 (K)."""
NEAR_ZERO = 0.01
"""Over half of the tokens lie below this entropy, nats, in arXiv 2506.01939 (K)."""

NOISE = "when the class holds few tokens: look at its share"
TRUNCATED = "with top_p < 1 it is the entropy of the whole vocabulary, not of the nucleus sampled from"
COMPOSITION = "when responses change class between steps: it moves without any token's entropy moving"


@ENTROPY.measures(
    Metric("entropy/mean", "nats", "mean of H = −Σ_v π_v log π_v", "all response tokens of the batch", TRUNCATED),
    Metric("entropy/positive", "nats", "mean of H", "tokens with A > 0", NOISE),
    Metric("entropy/negative", "nats", "mean of H", "tokens with A < 0", NOISE),
    Metric("entropy/zero_advantage", "nats", "mean of H", "tokens with A = 0", NOISE),
)
def _by_sign(r: Rollouts) -> dict[str, Tensor]:
    means = means_by_class(r.tokens.entropy, partitions.sign_class(r.tokens), len(partitions.SIGNS))
    return {"entropy/mean": masked_mean(r.tokens.entropy)} | _named("entropy/", partitions.SIGNS, means)


@ENTROPY.measures(
    Metric("entropy/correct", "nats", "mean of H", "tokens of correct responses", COMPOSITION),
    Metric("entropy/incorrect", "nats", "mean of H", "tokens of incorrect responses", COMPOSITION),
)
def _by_correctness(r: Rollouts) -> dict[str, Tensor]:
    if "correct" not in r.sequences:
        return {}
    label = r.broadcast_to_tokens(r.sequences.correct).long()
    return _named("entropy/", ("incorrect", "correct"), means_by_class(r.tokens.entropy, label, 2))


@ENTROPY.measures(
    *(
        Metric(
            f"entropy/decile_{d}",
            "nats",
            "mean of H",
            f"tokens with ⌊10 · position / length⌋ = {d}",
            "for responses under 10 tokens, which have none in some deciles; deciles of long and short responses mix",
        )
        for d in range(partitions.DECILES)
    )
)
def _by_decile(r: Rollouts) -> dict[str, Tensor]:
    means = means_by_class(r.tokens.entropy, partitions.decile_class(r), partitions.DECILES)
    return _named("entropy/decile_", range(partitions.DECILES), means)


_QUADRANTS = [name for name in partitions.QUADRANTS if name != "zero_advantage"]
_NEAR_TIES = "where π ≈ 1: there π and e^{−H} agree to rounding and the side is a matter of digits"


@ENTROPY.measures(
    *(Metric(f"entropy/{q}", "nats", "mean of H", f"tokens of the quadrant: {partitions.QUADRANT_DEFINITION}", NOISE)
      for q in _QUADRANTS),
    *(Metric(f"quadrant/{q}_fraction", "fraction", f"share of tokens: {partitions.QUADRANT_DEFINITION}",
             "all response tokens", _NEAR_TIES) for q in _QUADRANTS),
)  # fmt: skip
def _by_quadrant(r: Rollouts) -> dict[str, Tensor]:
    label, count = partitions.quadrant_class(r.tokens), len(partitions.QUADRANTS)
    means = dict(zip(partitions.QUADRANTS, means_by_class(r.tokens.entropy, label, count), strict=True))
    share = dict(zip(partitions.QUADRANTS, torch.bincount(label, minlength=count) / len(label), strict=True))
    return {f"entropy/{q}": means[q] for q in _QUADRANTS} | {f"quadrant/{q}_fraction": share[q] for q in _QUADRANTS}


@ENTROPY.measures(
    Metric("entropy/p80", "nats", "80th percentile of H, linear between order statistics", "all response tokens",
           "across tasks: on a small vocabulary it is lower than published values by construction"),
    Metric("entropy/top_share", "fraction", "Σ H over tokens with H > entropy/p80, over Σ H", "all response tokens",
           "near 1 in a collapsed policy, where a few tokens hold what little entropy is left"),
    Metric("entropy/above_published_fraction", "fraction",
           f"share of tokens with H > {PUBLISHED_P80} nats, the published 80th percentile (arXiv 2506.01939)",
           "all response tokens", "at temperatures and vocabularies other than the published ones"),
    Metric("entropy/near_zero_fraction", "fraction", f"share of tokens with H < {NEAR_ZERO} nats",
           "all response tokens", "says nothing on the tokens that decide: see entropy/top_share"),
)  # fmt: skip
def _spread(r: Rollouts) -> dict[str, Tensor]:
    entropy, place = r.tokens.entropy, 0.8 * (len(r.tokens) - 1)
    low, high = (entropy.kthvalue(1 + rank).values.double() for rank in (math.floor(place), math.ceil(place)))
    threshold = low + (high - low) * (place - math.floor(place))
    return {
        "entropy/p80": threshold,
        "entropy/top_share": entropy[entropy > threshold].double().sum() / entropy.double().sum(),
        "entropy/above_published_fraction": masked_mean(entropy > PUBLISHED_P80),
        "entropy/near_zero_fraction": masked_mean(entropy < NEAR_ZERO),
    }


_BY_TOKEN = "where the tokenizer splits a word, or a phrase carries the meaning: tokens are classed one by one"


@ENTROPY.measures(
    *(Metric(f"entropy/class_{name}", "nats", "mean of H", f"tokens of the class: {text}", NOISE)
      for name, text in token_classes.DEFINITIONS.items()),
    *(Metric(f"token_class/{name}_fraction", "fraction", f"share of tokens of the class: {text}",
             "all response tokens", _BY_TOKEN) for name, text in token_classes.DEFINITIONS.items()),
)  # fmt: skip
def _by_token_class(r: Rollouts) -> dict[str, Tensor]:
    if "token_class" not in r.tokens:
        return {}
    label, count = r.tokens.token_class, len(token_classes.NAMES)
    share = torch.bincount(label, minlength=count) / len(label)
    out = _named("entropy/class_", token_classes.NAMES, means_by_class(r.tokens.entropy, label, count))
    return out | {f"token_class/{name}_fraction": s for name, s in zip(token_classes.NAMES, share, strict=True)}


def _named(prefix: str, names, values) -> dict[str, Tensor]:
    return {f"{prefix}{name}": value for name, value in zip(names, values, strict=True)}
