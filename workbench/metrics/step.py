"""What every rollout step measures on its two tables.

Entropy is always the exact full-vocabulary entropy in nats at the sampling temperature, averaged over response tokens:
one definition, whatever the loss does.
"""

from __future__ import annotations

import torch
from torch import Tensor

from workbench.metrics.registry import Metric, Registry, masked_mean
from workbench.tables import Rollouts

STEP = Registry()
UPDATE = Registry()


def step_metrics(rollouts: Rollouts) -> dict[str, float]:
    """Metrics of the rollouts before the step's updates."""
    return STEP.compute(rollouts)


def update_metrics(rollouts: Rollouts) -> dict[str, float]:
    """Metrics of the updates, over the tokens trained on."""
    trained = ~rollouts.tokens.logp.isnan()
    return UPDATE.compute(Rollouts(rollouts.prompts, rollouts.sequences, rollouts.tokens.select(trained)))


@STEP.metric("entropy/mean", "nats", "mean over all response tokens of the batch")
def _entropy(r: Rollouts) -> Tensor:
    return masked_mean(r.tokens.entropy)


@STEP.metric("entropy/positive", "nats", "mean over tokens with advantage > 0")
def _entropy_positive(r: Rollouts) -> Tensor:
    return masked_mean(r.tokens.entropy, r.tokens.advantage > 0)


@STEP.metric("entropy/negative", "nats", "mean over tokens with advantage < 0")
def _entropy_negative(r: Rollouts) -> Tensor:
    return masked_mean(r.tokens.entropy, r.tokens.advantage < 0)


@STEP.metric("entropy/correct", "nats", "mean over tokens of correct responses")
def _entropy_correct(r: Rollouts) -> Tensor:
    return masked_mean(r.tokens.entropy, r.broadcast_to_tokens(r.sequences.correct))


@STEP.metric("entropy/incorrect", "nats", "mean over tokens of incorrect responses")
def _entropy_incorrect(r: Rollouts) -> Tensor:
    return masked_mean(r.tokens.entropy, ~r.broadcast_to_tokens(r.sequences.correct))


@STEP.metric("logp/mean", "nats", "mean log-prob of the sampled tokens; −this estimates entropy/mean without bias")
def _logp(r: Rollouts) -> Tensor:
    return masked_mean(r.tokens.rollout_logp)


@STEP.metric("reward/mean", "1", "mean reward over responses, after the methods' reward shaping")
def _reward(r: Rollouts) -> Tensor:
    return masked_mean(r.sequences.reward)


@STEP.metric("reward/correct", "fraction", "share of responses the verifier accepts")
def _correct(r: Rollouts) -> Tensor:
    return masked_mean(r.sequences.correct)


@STEP.metric("length/mean", "tokens", "mean response length, end mark included")
def _length(r: Rollouts) -> Tensor:
    return masked_mean(r.sequences.length)


@STEP.metric("length/finished_fraction", "fraction", "share of responses that ended by themselves")
def _finished(r: Rollouts) -> Tensor:
    return masked_mean(r.sequences.finished)


@STEP.metric("group/zero_variance_fraction", "fraction", "share of groups whose rewards are all equal: no gradient")
def _zero_variance(r: Rollouts) -> Tensor:
    return masked_mean(_one_per_group(r, r.group_is_constant(r.sequences.reward).double()))


@STEP.metric(
    "group/distinct_correct", "count", "distinct correct derivations per group, where the task tells them apart"
)
def _distinct_correct(r: Rollouts) -> Tensor | None:
    if "derivation" not in r.sequences:
        return None
    groups, correct = r.sequences.group.tolist(), r.sequences.correct.tolist()
    named = zip(groups, r.sequences.derivation, correct, strict=True)
    distinct = {(group, derivation) for group, derivation, ok in named if ok and derivation}
    return torch.tensor(len(distinct) / len(set(groups)))


@STEP.metric("derivation/valid_fraction", "fraction", "share of responses in which every step is right")
def _valid(r: Rollouts) -> Tensor | None:
    return masked_mean(r.sequences.valid) if "valid" in r.sequences else None


@UPDATE.metric("clip/low_fraction", "fraction", "share of tokens with A < 0 and ratio < 1 − ε_low: no gradient")
def _clip_low(r: Rollouts) -> Tensor:
    return masked_mean((r.tokens.advantage < 0) & (_ratio(r) < 1 - r.tokens.clip_low))


@UPDATE.metric("clip/high_fraction", "fraction", "share of tokens with A > 0 and ratio > 1 + ε_high: no gradient")
def _clip_high(r: Rollouts) -> Tensor:
    return masked_mean((r.tokens.advantage > 0) & (_ratio(r) > 1 + r.tokens.clip_high))


@UPDATE.metric(
    "ratio/mean",
    "1",
    "mean importance ratio (π/π_old unless a method says otherwise) when the token was trained on, before that update",
)
def _ratio_mean(r: Rollouts) -> Tensor:
    return masked_mean(_ratio(r))


@UPDATE.metric("ratio/max", "1", "largest importance ratio of the step")
def _ratio_max(r: Rollouts) -> Tensor | None:
    return _ratio(r).max() if len(r.tokens) else None


@UPDATE.metric("weight/mean", "1", "mean weight of the tokens' surrogate, 0 for tokens masked out of the loss")
def _weight_mean(r: Rollouts) -> Tensor | None:
    return masked_mean(r.tokens.weight) if "weight" in r.tokens else None


@UPDATE.metric("weight/zero_fraction", "fraction", "share of tokens whose surrogate has weight 0 or is masked out")
def _weight_zero(r: Rollouts) -> Tensor | None:
    return masked_mean(r.tokens.weight == 0) if "weight" in r.tokens else None


@UPDATE.metric(
    "kl/old", "nats", "k3 estimate of KL(π_old‖π) over the step's updates: mean of r − 1 − log r, r = π/π_old"
)
def _kl_old(r: Rollouts) -> Tensor:
    change = r.tokens.logp - r.tokens.old_logp
    return masked_mean(change.expm1() - change)


def _ratio(r: Rollouts) -> Tensor:
    return r.tokens.ratio if "ratio" in r.tokens else (r.tokens.logp - r.tokens.old_logp).exp()


def _one_per_group(r: Rollouts, values: Tensor) -> Tensor:
    """One value per group of values [S] that are equal within a group."""
    group = r.sequences.group
    return torch.zeros(int(group.max()) + 1, dtype=values.dtype, device=group.device).index_copy_(0, group, values)


TRAINER_MEASURES = {
    "loss/total": ("1", "loss of the objective, mean over the step's updates, each before its update"),
    "grad/norm": ("1", "L2 norm of the gradient before clipping, mean over the step's updates"),
    "lr": ("1", "learning rate, mean over the step's updates"),
    "update/count": ("count", "optimiser updates made; fewer than configured when mini-batches were left empty"),
    "sampling/rounds": ("count", "sampling rounds until the batch was full"),
    "sampling/groups_per_kept": ("1", "groups sampled per group in the batch"),
    "critic/loss": ("1", "Huber loss of the critic, mean over the step's updates, each before its update"),
    "critic/grad_norm": ("1", "L2 norm of the critic's gradient before clipping, mean over the step's updates"),
}
"""What the trainer itself reports of a step: name -> (unit, definition); the critic's where there is one."""

ALL_METRICS = [
    *STEP.metrics.values(),
    *UPDATE.metrics.values(),
    *(Metric(name, unit, definition) for name, (unit, definition) in TRAINER_MEASURES.items()),
]
"""Every metric of a rollout step with its unit and definition; methods add their own under `method/<name>/`."""
