"""Step metrics against pandas on the stored frames."""

import math

import pytest
import torch

import workbench as wb
from workbench.metrics.step import STEP, UPDATE, step_metrics, update_metrics
from workbench.tables import Rollouts
from workbench.training.trainer import Trainer


@pytest.fixture(scope="module")
def result():
    overrides = {"rollout.samples": 8, "optimiser.learning_rate": 2e-3, "training.updates_per_rollout": 4}
    return Trainer(wb.preset("smoke", overrides)).step(1)


@pytest.fixture(scope="module")
def frames(result):
    import pandas as pd

    tables = (result.rollouts.sequences, result.rollouts.tokens)
    return tuple(pd.DataFrame({k: v if isinstance(v, list) else v.numpy() for k, v in t.items()}) for t in tables)


def test_entropy_is_the_plain_mean_over_tokens(result, frames):
    _, tokens = frames
    m = result.metrics
    assert m["entropy/mean"] == pytest.approx(tokens["entropy"].mean(), rel=1e-6)
    assert m["entropy/positive"] == pytest.approx(tokens.query("advantage > 0")["entropy"].mean(), rel=1e-6)
    assert m["entropy/negative"] == pytest.approx(tokens.query("advantage < 0")["entropy"].mean(), rel=1e-6)


def test_entropy_by_correctness_and_groups(result, frames):
    sequences, tokens = frames
    correct = tokens["sequence"].map(sequences["correct"])
    m = result.metrics
    assert m["entropy/correct"] == pytest.approx(tokens["entropy"][correct].mean(), rel=1e-6)
    assert m["entropy/incorrect"] == pytest.approx(tokens["entropy"][~correct].mean(), rel=1e-6)
    by_group = sequences.groupby("group")
    assert m["group/zero_variance_fraction"] == pytest.approx((by_group["reward"].nunique() == 1).mean())
    good = sequences[sequences["correct"] & (sequences["derivation"] != "")]
    assert m["group/distinct_correct"] == pytest.approx(
        good.groupby("group")["derivation"].nunique().sum() / by_group.ngroups
    )


def test_clip_fractions_count_what_the_loss_clips(result, frames):
    _, tokens = frames
    ratio = (tokens["logp"] - tokens["old_logp"]).map(math.exp)
    assert result.metrics["clip/low_fraction"] == pytest.approx(((tokens["advantage"] < 0) & (ratio < 0.8)).mean())
    assert result.metrics["clip/high_fraction"] == pytest.approx(((tokens["advantage"] > 0) & (ratio > 1.2)).mean())
    assert result.metrics["clip/high_fraction"] + result.metrics["clip/low_fraction"] > 0


def test_tokens_left_out_of_the_update_count_in_no_update_metric(result):
    r = result.rollouts
    logp = r.tokens.logp.clone()
    logp[::2] = float("nan")
    halved = update_metrics(Rollouts(r.prompts, r.sequences, r.tokens.with_columns(logp=logp)))
    assert all(math.isfinite(value) for value in halved.values())


def test_order_of_sequences_changes_nothing(result):
    r = result.rollouts
    order = torch.randperm(len(r.sequences))
    before, after = step_metrics(r), step_metrics(r.select_sequences(order))
    assert before == pytest.approx(after, rel=1e-9, nan_ok=True)


def test_every_metric_says_what_it_is():
    for metric in [*STEP.metrics.values(), *UPDATE.metrics.values()]:
        assert "/" in metric.name
        assert metric.unit
        assert metric.definition
