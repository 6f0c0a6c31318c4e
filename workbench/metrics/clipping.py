"""What the updates of a step did: clipping, ratios, weights, divergence from the old policy, and the sampler's gap.

The token columns are those the trainer left when it last trained on a token, before that update.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from workbench.metrics.partitions import clipped, discriminator_gap, importance_ratio
from workbench.metrics.registry import Metric, Registry, masked_mean
from workbench.tables import Rollouts

CLIPPING = Registry()

TRAINED = "tokens that took part in an update"
OTHER_SURROGATE = "under a surrogate that does not clip there (CISPO, KL-Cov …): then it only counts ratios"
STALE = "it is taken before each token's own update: with one update per rollout it is 0 by construction"


@CLIPPING.measures(
    Metric("clip/low_fraction", "fraction", "share of tokens with A < 0 and ratio < 1 − ε_low: no gradient", TRAINED,
           OTHER_SURROGATE),
    Metric("clip/high_fraction", "fraction", "share of tokens with A > 0 and ratio > 1 + ε_high: no gradient", TRAINED,
           OTHER_SURROGATE),
    Metric("clip/low_probability", "probability", "mean π_old", "tokens clipped low", "when few tokens are clipped"),
    Metric("clip/high_probability", "probability", "mean π_old", "tokens clipped high", "when few tokens are clipped"),
    Metric("clip/low_gap", "nats", "mean S − E[S]: its sign says which way their gradient would have moved entropy",
           "tokens clipped low", "when few tokens are clipped; π_old is the policy before the step, not at the clip"),
    Metric("clip/high_gap", "nats", "mean S − E[S]: its sign says which way their gradient would have moved entropy",
           "tokens clipped high", "when few tokens are clipped; π_old is the policy before the step, not at the clip"),
)  # fmt: skip
def _clipping(r: Rollouts) -> dict[str, Tensor]:
    probability = r.tokens.old_logp.exp()
    gap = discriminator_gap(r.tokens) if "expected_discriminator" in r.tokens else None
    out = {}
    for side, mask in zip(("low", "high"), clipped(r.tokens), strict=True):
        out[f"clip/{side}_fraction"] = masked_mean(mask)
        out[f"clip/{side}_probability"] = masked_mean(probability, mask)
        if gap is not None:
            out[f"clip/{side}_gap"] = masked_mean(gap, mask)
    return out


@CLIPPING.measures(
    Metric("ratio/mean", "1", "mean importance ratio, π/π_old unless a method says otherwise", TRAINED, STALE),
    Metric("ratio/max", "1", "largest importance ratio of the step", TRAINED, "a single token decides it"),
)
def _ratio(r: Rollouts) -> dict[str, Tensor]:
    ratio = importance_ratio(r.tokens)
    return {"ratio/mean": masked_mean(ratio)} | ({"ratio/max": ratio.max()} if len(ratio) else {})


@CLIPPING.measures(
    Metric("weight/mean", "1", "mean weight of the surrogate, 0 where masked out of the loss", TRAINED,
           "under denominators that count tokens in the loss alone: a mask does not shrink the step there"),
    Metric("weight/zero_fraction", "fraction", "share of tokens whose surrogate has weight 0 or is masked out", TRAINED,
           "regularisers still act on tokens of weight 0 that are not masked out"),
    Metric("update/effective_tokens", "count", "tokens with A ≠ 0 and weight ≠ 0", TRAINED,
           "clipped tokens count, though they have no gradient: see clip/…"),
)  # fmt: skip
def _weights(r: Rollouts) -> dict[str, Tensor]:
    if "weight" not in r.tokens:
        return {}
    weight = r.tokens.weight
    return {
        "weight/mean": masked_mean(weight),
        "weight/zero_fraction": masked_mean(weight == 0),
        "update/effective_tokens": ((weight != 0) & (r.tokens.advantage != 0)).sum(),
    }


@CLIPPING.measures(
    Metric("kl/old", "nats", "k3 estimate of KL(π_old‖π): mean of r − 1 − log r, r = π/π_old", TRAINED,
           STALE + "; change/kl is taken after all of them"),
)  # fmt: skip
def _kl(r: Rollouts) -> dict[str, Tensor]:
    change = (r.tokens.logp - r.tokens.old_logp).double()
    return {"kl/old": masked_mean(change.expm1() - change)}


_FIRST = "sampled tokens of the step's first update, where trainer and sampler have the same weights"
_DIFFERENT_BY_DESIGN = "with top_p < 1, or scored at another temperature than sampled at: it then differs by design"


@CLIPPING.measures(
    Metric(
        "gap/mean", "nats", "mean |d|, d = log π by the trainer − log π by the sampler", _FIRST, _DIFFERENT_BY_DESIGN
    ),
    Metric("gap/max", "nats", "max |d|", _FIRST, "a single token decides it"),
    Metric("gap/kl", "nats", "k3 estimate of KL(sampler‖trainer): mean of e^d − 1 − d", _FIRST, _DIFFERENT_BY_DESIGN),
)
def _sampler_gap(r: Rollouts) -> dict[str, Tensor]:
    tokens = r.tokens
    if not {"update", "rollout_logp"} <= set(tokens) or not len(tokens):
        return {}
    first = tokens.update == tokens.update.min()
    if "offline" in r.sequences:
        first &= ~r.broadcast_to_tokens(r.sequences.offline)
    d = (tokens.logp - tokens.rollout_logp)[first].double()
    largest = d.abs().max() if len(d) else torch.tensor(math.nan)
    return {"gap/mean": masked_mean(d.abs()), "gap/max": largest, "gap/kl": masked_mean(d.expm1() - d)}
