"""ΔH over a rollout step, measured on the same tokens before and after its updates, and what it is made of.

    ΔH = (1/N) Σ_t (H_after(t) − H_before(t));   contribution of class C = (1/N) Σ_{t∈C} (H_after(t) − H_before(t))

over the N response tokens that were scored again after the step's last update. The classes of one division (signs of
the advantage, quadrants, clipping, correctness, token classes) cover all tokens once, so their contributions add up to
ΔH. H_before is the column `entropy`, or `entropy_before` where the tokens were scored before the step by the same
forward pass as after it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from workbench.metrics import partitions, token_classes
from workbench.metrics.registry import Metric, Registry, correlation, covariance, masked_mean, shares_by_class
from workbench.tables import Rollouts, Table

CHANGE = Registry()

MOVED = 0.1
"""|Δπ| from which a token counts as moved: "significantly updated" in arXiv 2508.02260 gives no number (I)."""

SCORED = "response tokens scored again after the updates (storage.measure_change_share of the prompts)"
SAMPLED = "as the change of the policy's entropy on its own new samples: these are the old policy's tokens"
NOT_CAUSE = "as cause: the updates on all tokens, through shared weights, move the tokens of every class"


def change_metrics(rollouts: Rollouts) -> dict[str, float]:
    """Metrics of the change; {} if no token was scored again (no column `entropy_after`)."""
    if "entropy_after" not in rollouts.tokens:
        return {}
    scored = ~rollouts.tokens.entropy_after.isnan()
    if not bool(scored.any()):
        return {}
    return CHANGE.compute(Rollouts(rollouts.prompts, rollouts.sequences, rollouts.tokens.select(scored)))


def entropy_change(tokens: Table) -> Tensor:
    """H_after − H_before per token [N], fp64, nats; NaN for tokens that were not scored again."""
    return tokens.entropy_after.double() - _before(tokens, "entropy", "entropy").double()


@CHANGE.measures(
    Metric("change/tokens", "count", "N: tokens scored again", SCORED, "few tokens make a noisy ΔH"),
    Metric("change/entropy_before", "nats", "mean of H before the step's updates", SCORED,
           "differs from entropy/mean, which is over the whole batch"),
    Metric("change/entropy_after", "nats", "mean of H after the step's updates", SCORED, SAMPLED),
    Metric("change/entropy", "nats", "ΔH = entropy_after − entropy_before", SCORED, SAMPLED),
)  # fmt: skip
def _change(r: Rollouts) -> dict[str, Tensor]:
    return {
        "change/tokens": torch.tensor(len(r.tokens)),
        "change/entropy_before": masked_mean(_before(r.tokens, "entropy", "entropy")),
        "change/entropy_after": masked_mean(r.tokens.entropy_after),
        "change/entropy": entropy_change(r.tokens).mean(),
    }


def _contributions(names: dict[str, str], misleads: str = NOT_CAUSE) -> list[Metric]:
    """Metrics `change/<name>`; names: class -> which tokens it holds."""
    definition = "Σ over the class of (H_after − H_before) / N; the classes add up to change/entropy"
    return [
        Metric(f"change/{name}", "nats", definition, f"{tokens}, over all N scored again", misleads)
        for name, tokens in names.items()
    ]


@CHANGE.measures(
    *_contributions(
        {"positive": "tokens with A > 0", "negative": "tokens with A < 0", "zero_advantage": "tokens with A = 0"}
    )
)
def _by_sign(r: Rollouts) -> dict[str, Tensor]:
    return _divided(r, partitions.sign_class(r.tokens), partitions.SIGNS)


@CHANGE.measures(
    *_contributions(
        {
            name: f"quadrant ({partitions.QUADRANT_DEFINITION}; with change/zero_advantage the four add up)"
            for name in partitions.QUADRANTS
            if name != "zero_advantage"
        }
    )
)
def _by_quadrant(r: Rollouts) -> dict[str, Tensor]:
    out = _divided(r, partitions.quadrant_class(r.tokens), partitions.QUADRANTS)
    return {name: value for name, value in out.items() if name != "change/zero_advantage"}


@CHANGE.measures(
    *_contributions(
        {
            "clipped_low": "tokens with A < 0 and ratio < 1 − ε_low when trained on",
            "clipped_high": "tokens with A > 0 and ratio > 1 + ε_high when trained on",
            "unclipped": "other tokens of the loss",
            "outside": "tokens in no update, or of weight 0 in the loss",
        }
    )
)
def _by_clipping(r: Rollouts) -> dict[str, Tensor]:
    if not {"logp", "clip_low", "clip_high"} <= set(r.tokens):
        return {}
    return _divided(r, partitions.clip_class(r.tokens), partitions.CLIPPING)


@CHANGE.measures(
    *_contributions({"correct": "tokens of correct responses", "incorrect": "tokens of incorrect responses"})
)
def _by_correctness(r: Rollouts) -> dict[str, Tensor]:
    if "correct" not in r.sequences:
        return {}
    return _divided(r, r.broadcast_to_tokens(r.sequences.correct).long(), ("incorrect", "correct"))


@CHANGE.measures(
    *_contributions(
        {f"class_{name}": f"tokens of the class: {text}" for name, text in token_classes.DEFINITIONS.items()}
    )
)
def _by_token_class(r: Rollouts) -> dict[str, Tensor]:
    if "token_class" not in r.tokens:
        return {}
    return _divided(r, r.tokens.token_class, [f"class_{name}" for name in token_classes.NAMES])


@CHANGE.measures(
    Metric("change/kl", "nats", "k3 estimate of KL(π_old‖π_after): mean of r − 1 − log r, r = π_after/π_old", SCORED,
           "a heavy tail: few tokens decide it"),
    Metric("change/moved_fraction", "fraction", f"share of tokens with |π_after − π_old| > {MOVED} (I)", SCORED,
           "a token of probability under the threshold can only count when it rises"),
)  # fmt: skip
def _moved(r: Rollouts) -> dict[str, Tensor]:
    before, after = _before(r.tokens, "logp", "old_logp").double(), r.tokens.logp_after.double()
    change = after - before
    return {
        "change/kl": (change.expm1() - change).mean(),
        "change/moved_fraction": masked_mean((after.exp() - before.exp()).abs() > MOVED),
    }


_PREDICTION = "x_t = −c_t (S − E[S]), c_t = weight · ratio · A, 0 where clipped: first-order ΔH of a step on own logits"
_TRAINED = "tokens scored again that took part in an update"
_INDIRECT = (
    "a low value does not refute the formula, which is exact for one logit step: a token's entropy moves mostly by the "
    "updates on other tokens and by AdamW's scaling"
)


@CHANGE.measures(
    Metric("change/predicted", "nats per unit step", f"mean of {_PREDICTION}", _TRAINED,
           "its size is in units of the step on a logit, which AdamW does not have; read its sign"),
    Metric("change/prediction_correlation", "1", "Pearson correlation of x_t and H_after − H_before", _TRAINED,
           _INDIRECT),
    Metric("change/prediction_rank_correlation", "1", "Spearman correlation of the same", _TRAINED, _INDIRECT),
    Metric("change/prediction_slope", "1", "least-squares slope of H_after − H_before on x_t: the step on a token's "
           "own logits that would explain it", _TRAINED, _INDIRECT),
)  # fmt: skip
def _prediction(r: Rollouts) -> dict[str, Tensor]:
    if not {"logp", "clip_low", "clip_high", "expected_discriminator"} <= set(r.tokens):
        return {}
    tokens = r.tokens.select(~r.tokens.logp.isnan())
    x, change = first_order_push(tokens), entropy_change(tokens)
    return {
        "change/predicted": masked_mean(x),
        "change/prediction_correlation": correlation(x, change),
        "change/prediction_rank_correlation": correlation(ranks(x), ranks(change)),
        "change/prediction_slope": covariance(x, change) / covariance(x, x),
    }


def first_order_push(tokens: Table) -> Tensor:
    """x_t = −c_t (S_t − E[S]_t) [N] fp64: entropy change of a logit step of unit rate (arXiv 2602.03392, Theorem 3.3,
    α = η·r·A, here without η and with the token's weight (I)); c_t = 0 where the clip cuts the gradient."""
    low, high = partitions.clipped(tokens)
    weight = tokens.weight if "weight" in tokens else torch.ones_like(tokens.advantage)
    step = (weight * partitions.importance_ratio(tokens) * tokens.advantage).double()
    return torch.where(low | high, 0.0, -step * partitions.discriminator_gap(tokens).double())


def ranks(values: Tensor) -> Tensor:
    """Ranks [N] fp64 from 0; equal values share the mean of theirs."""
    _, place, count = values.unique(return_inverse=True, return_counts=True)
    return (count.cumsum(0) - (count + 1) / 2).double()[place]


def _divided(r: Rollouts, label: Tensor, names) -> dict[str, Tensor]:
    shares = shares_by_class(entropy_change(r.tokens), label, len(names))
    return {f"change/{name}": share for name, share in zip(names, shares, strict=True)}


def _before(tokens: Table, name: str, sampled: str) -> Tensor:
    """Column `<name>_before`, where it was measured apart, else the column `sampled`."""
    return tokens[f"{name}_before"] if f"{name}_before" in tokens else tokens[sampled]
