"""What every rollout step measures on its two tables, and the list of everything it logs."""

from __future__ import annotations

from itertools import chain

from workbench.metrics.change import CHANGE, change_metrics
from workbench.metrics.clipping import CLIPPING
from workbench.metrics.dynamics import DYNAMICS
from workbench.metrics.entropy import ENTROPY
from workbench.metrics.groups import GROUPS
from workbench.metrics.registry import Metric
from workbench.tables import Rollouts

SAMPLED = (ENTROPY, GROUPS, DYNAMICS)


def step_metrics(rollouts: Rollouts) -> dict[str, float]:
    """Metrics of the rollouts before the step's updates."""
    return {name: value for registry in SAMPLED for name, value in registry.compute(rollouts).items()}


def update_metrics(rollouts: Rollouts) -> dict[str, float]:
    """Metrics of the updates, over the tokens trained on."""
    tokens, trained = rollouts.tokens, ~rollouts.tokens.logp.isnan()
    if not bool(trained.all()):
        tokens = tokens.select(trained)
    return CLIPPING.compute(Rollouts(rollouts.prompts, rollouts.sequences, tokens))


_UPDATES = "optimiser updates of the step"
_ROUNDS = "a batch that cannot be filled stops at the method's bound"

TRAINER_METRICS = [
    Metric("entropy/ema", "nats", "E_k = 0.4·H_k + 0.6·E_{k−1}, E_1 = H_1, H = entropy/mean (arXiv 2511.05993)",
           "the steps so far", "right after a fast change: it lags by a step or two"),
    Metric("loss/total", "1", "loss of the objective, mean over the updates, each before its update", _UPDATES,
           "as progress: advantages are centred, so it stays near 0 while the policy learns"),
    Metric("grad/norm", "1", "L2 norm of the gradient before clipping to max_grad_norm, mean over the updates",
           _UPDATES, "under AdamW the step's size hardly depends on it"),
    Metric("grad/skipped", "1", "share of updates skipped because their gradient overflowed", f"{_UPDATES}, in float16",
           "nothing was learnt in them"),
    Metric("grad/loss_scale", "1", "factor on the loss against underflow, mean over the updates, each after its update",
           f"{_UPDATES}, in float16", "it doubles after many good updates, so an overflow now and then is normal"),
    Metric("lr", "1", "learning rate, mean over the updates", _UPDATES, "AdamW's step per weight is about this size"),
    Metric("update/count", "count", "optimiser updates made", _UPDATES,
           "fewer than configured when mini-batches were left empty"),
    Metric("sampling/rounds", "count", "sampling rounds until the batch was full", "the step", _ROUNDS),
    Metric("sampling/groups_per_kept", "1", "groups sampled per group in the batch", "the step", _ROUNDS),
    Metric("critic/loss", "1", "Huber loss of the critic, mean over the updates, each before its update",
           f"{_UPDATES}, where there is a critic", "its target moves with the policy"),
    Metric("critic/grad_norm", "1", "L2 norm of the critic's gradient before clipping, mean over the updates",
           f"{_UPDATES}, where there is a critic", "under AdamW the step's size hardly depends on it"),
]  # fmt: skip
"""What the training loop itself reports of a step; the critic's where there is one."""

_MACHINE = "other work on the machine counts; it is not reproducible and stays out of metrics.jsonl"

TIMINGS = [
    Metric(f"time/{part}", "s", f"wall time of {what}", "the step", _MACHINE)
    for part, what in {
        "sampling": "drawing prompts, sampling and verifying responses",
        "scoring": "log-probs of the trainer, the reference and the critic, as far as asked for",
        "advantages": "rewards, baseline and token shaping",
        "update": "forward, backward and optimiser steps",
        "measures": "metrics, the second scoring of measure_change_share included",
        "step": "the whole rollout step with the writing of its rollouts",
    }.items()
]
"""Seconds per part of a step, in timings.jsonl."""

ALL_METRICS = [
    *chain.from_iterable(registry.metrics.values() for registry in (*SAMPLED, CLIPPING, CHANGE)),
    *TRAINER_METRICS,
]
"""Every metric of a rollout step; methods add their own under `method/<name>/`."""

__all__ = ["ALL_METRICS", "TIMINGS", "TRAINER_METRICS", "change_metrics", "step_metrics", "update_metrics"]
