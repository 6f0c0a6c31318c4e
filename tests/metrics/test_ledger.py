"""The ledger's parts add up, whatever the division; warnings and separations on curves made for them."""

import numpy as np
import pytest

import workbench as wb
from workbench.metrics.collapse import collapse_warning, warning_record
from workbench.metrics.ledger import DIVISIONS, ledger, missing_for_ledger, spent
from workbench.metrics.separation import separation
from workbench.store import open_run
from workbench.training.run import train_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    overrides = {"storage.keep_rollouts_every": 1, "storage.measure_change_share": 0.5, "evaluation.sets": []}
    config = wb.preset("smoke", overrides | {"training.steps": 3, "optimiser.learning_rate": 3e-3})
    return open_run(train_run(config, tmp_path_factory.mktemp("runs"), log=lambda line: None))


@pytest.mark.parametrize("division", DIVISIONS)
def test_parts_add_up_to_the_measured_change_at_every_step(run, division):
    measured = run.metrics.set_index("step")["change/entropy"]
    for step in run.rollout_steps:
        stored = run.rollouts(step)
        held = ledger(stored.sequences, stored.tokens, division)
        assert held.table["measured"].sum() == pytest.approx(measured[step], abs=1e-6)
        assert held.table["tokens"].sum() == held.scored < held.tokens
        np.testing.assert_allclose(held.table["predicted"] + held.table["residual"], held.table["measured"], atol=1e-12)
        assert np.isnan(held.r2) or -1e-9 <= held.r2 <= 1  # NaN: no token changed
        counts = np.bincount(held.part[held.part >= 0], minlength=len(held.table))
        assert counts.tolist() == held.table["tokens"].tolist()


def test_what_was_spent_adds_up_too(run):
    stored = run.rollouts(2)
    for by in ("prompt", "token string"):
        table = spent(stored.sequences, stored.tokens, by)
        assert table["measured"].sum() == pytest.approx(run.metrics["change/entropy"][1], abs=1e-6)
        assert table["measured"].is_monotonic_increasing


def test_a_step_that_was_not_scored_again_says_so(run):
    stored = run.rollouts(1)
    lacking = stored.tokens.drop(columns="entropy_after")
    assert missing_for_ledger(stored.tokens) == "" and "measure_change_share" in missing_for_ledger(lacking)
    with pytest.raises(ValueError, match="Not recorded"):
        ledger(stored.sequences, lacking, "prompt")
    with pytest.raises(ValueError, match="no division 'colour'"):
        ledger(stored.sequences, stored.tokens, "colour")


def test_a_steady_fall_is_warned_of_before_it_is_a_collapse():
    entropy = 0.4 * np.exp(-np.arange(80) / 25)
    found = collapse_warning(entropy)
    assert found.bound == pytest.approx(0.25 * entropy[:3].mean())
    assert found.warned < found.collapsed and found.lead == found.collapsed - found.warned


def test_verdicts():
    rng = np.random.default_rng(0)
    level = 0.4 + 0.02 * rng.standard_normal(80)
    falling = np.concatenate([level[:30], 0.4 * np.exp(-np.arange(50) / 15)])
    braked = np.concatenate([level[:10], 0.4 * np.exp(-np.arange(30) / 25), np.full(60, 0.13)])
    cliff = np.concatenate([level[:30], np.full(20, 0.01)])
    record = warning_record({"level": level, "falling": falling, "braked": braked, "cliff": cliff}).set_index("run")
    assert record["verdict"].to_dict() == {
        "level": "rightly silent", "falling": "in time", "braked": "false alarm", "cliff": "late"
    }  # fmt: skip
    assert collapse_warning([np.nan] * 5).collapsed is None


def test_the_warning_reads_the_past_alone():
    entropy = 0.4 * np.exp(-np.arange(80) / 25)
    at = collapse_warning(entropy).warned
    assert collapse_warning(entropy[: at + 1]).warned == at and collapse_warning(entropy[:at]).warned is None


def test_bands_part_where_the_curves_do():
    rng = np.random.default_rng(1)
    base = np.linspace(0.4, 0.3, 60)
    first = base + 0.004 * rng.standard_normal((3, 60))
    second = first[::-1].copy()
    second[:, 30:] += 0.1
    found = separation(first, second)
    assert found.at in (30, 31) and found.basis == "range over seeds"
    assert separation(first, first[::-1]).at is None
    assert separation(first[:1], second[:1]).basis.startswith("noise")
