"""Rewards, groups and lengths of a rollout batch."""

from __future__ import annotations

import torch
from torch import Tensor

from workbench.metrics.registry import Metric, Registry, masked_mean
from workbench.tables import Rollouts

GROUPS = Registry()

SHAPED = "under a method that shapes rewards it is not accuracy: see reward/correct"
TRAIN_PROMPTS = "on training prompts that a method selects it follows the selection; evaluations do not"


@GROUPS.measures(
    Metric("reward/mean", "1", "mean reward, after the methods' reward shaping", "all responses", SHAPED),
)
def _reward(r: Rollouts) -> dict[str, Tensor]:
    return {"reward/mean": masked_mean(r.sequences.reward)}


@GROUPS.measures(
    Metric("reward/correct", "fraction", "share of responses the verifier accepts", "all responses", TRAIN_PROMPTS),
    Metric("length/correct", "tokens", "mean length, end mark included", "correct responses", "when few are correct"),
    Metric("length/incorrect", "tokens", "mean length, end mark included", "incorrect responses",
           "when responses are cut at the bound: the cut ones are incorrect and of equal length"),
    Metric("group/all_correct_fraction", "fraction", "share of groups in which every response is correct",
           "all groups of the batch", "for small groups: it grows as the group shrinks"),
    Metric("group/all_wrong_fraction", "fraction", "share of groups in which no response is correct",
           "all groups of the batch", "for small groups: it grows as the group shrinks"),
    Metric("group/mixed_fraction", "fraction", "share of groups with correct and incorrect responses",
           "all groups of the batch", "with dynamic sampling it is 1 by construction: see sampling/groups_per_kept"),
)  # fmt: skip
def _correct(r: Rollouts) -> dict[str, Tensor]:
    if "correct" not in r.sequences:
        return {}
    correct, length = r.sequences.correct, r.sequences.length
    rate = one_per_group(r, r.group_mean(correct.double()))
    return {
        "reward/correct": masked_mean(correct),
        "length/correct": masked_mean(length, correct),
        "length/incorrect": masked_mean(length, ~correct),
        "group/all_correct_fraction": masked_mean(rate == 1),
        "group/all_wrong_fraction": masked_mean(rate == 0),
        "group/mixed_fraction": masked_mean((rate > 0) & (rate < 1)),
    }


@GROUPS.measures(
    Metric("length/mean", "tokens", "mean response length, end mark included", "all responses",
           "when responses are cut at the bound: see length/finished_fraction"),
    Metric("length/finished_fraction", "fraction", "share of responses that ended by themselves", "all responses",
           "for injected responses, which end by definition"),
)  # fmt: skip
def _length(r: Rollouts) -> dict[str, Tensor]:
    finished = {"length/finished_fraction": masked_mean(r.sequences.finished)} if "finished" in r.sequences else {}
    return {"length/mean": masked_mean(r.sequences.length)} | finished


@GROUPS.measures(
    Metric("group/zero_variance_fraction", "fraction", "share of groups whose rewards are all equal",
           "all groups of the batch", "no gradient only under baselines that compare within the group"),
    Metric("advantage/zero_fraction", "fraction", "share of tokens with A = 0", "all response tokens",
           "regularisers still act on these tokens"),
)  # fmt: skip
def _without_signal(r: Rollouts) -> dict[str, Tensor]:
    constant = one_per_group(r, r.group_is_constant(r.sequences.reward).double())
    return {
        "group/zero_variance_fraction": masked_mean(constant),
        "advantage/zero_fraction": masked_mean(r.tokens.advantage == 0),
    }


@GROUPS.measures(
    Metric("group/distinct_correct", "count", "distinct correct derivations per group, where the task tells them apart",
           "all groups of the batch", "falls with the number of correct responses as well as with their variety"),
)  # fmt: skip
def _distinct_correct(r: Rollouts) -> dict[str, float]:
    if "derivation" not in r.sequences:
        return {}
    groups, correct = r.sequences.group.tolist(), r.sequences.correct.tolist()
    named = zip(groups, r.sequences.derivation, correct, strict=True)
    distinct = {(group, derivation) for group, derivation, ok in named if ok and derivation}
    return {"group/distinct_correct": len(distinct) / len(set(groups))}


@GROUPS.measures(
    Metric("derivation/valid_fraction", "fraction", "share of responses in which every step is right",
           "all responses, where the task checks steps", "a short response has fewer steps to get wrong"),
)  # fmt: skip
def _valid(r: Rollouts) -> dict[str, Tensor]:
    return {"derivation/valid_fraction": masked_mean(r.sequences.valid)} if "valid" in r.sequences else {}


def one_per_group(r: Rollouts, values: Tensor) -> Tensor:
    """One value per group, in order of its number, of values [S] that are equal within a group."""
    number, group = r.sequences.group.unique(return_inverse=True)
    return torch.zeros(len(number), dtype=values.dtype, device=values.device).index_copy_(0, group, values)
