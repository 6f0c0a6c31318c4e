"""Calibration, against scikit-learn."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss, roc_auc_score

from workbench.metrics.calibration import (
    auroc,
    brier,
    calibration_table,
    expected_calibration_error,
    logp_gap,
    majority_by_prompt,
    mean_logp,
    reliability,
    reliability_table,
)

PAIRS = st.lists(st.tuples(st.integers(0, 20).map(lambda i: i / 20), st.booleans()), min_size=1, max_size=60)


def arrays(pairs):
    confidence, correct = zip(*pairs, strict=True)
    return np.array(confidence), np.array(correct)


@given(PAIRS)
def test_auroc_with_ties_is_that_of_scikit_learn(pairs):
    score, correct = arrays(pairs)
    if correct.all() or not correct.any():
        assert np.isnan(auroc(score, correct))
        return
    assert auroc(score, correct) == pytest.approx(roc_auc_score(correct, score), abs=1e-12)


@given(PAIRS)
def test_brier_and_reliability_are_those_of_scikit_learn(pairs):
    confidence, correct = arrays(pairs)
    assert brier(confidence, correct) == pytest.approx(brier_score_loss(correct, confidence, pos_label=True))
    table = reliability(confidence, correct)
    accuracy, mean_confidence = calibration_curve(correct, confidence, n_bins=10)
    filled = table[table["count"] > 0]
    assert filled["accuracy"].tolist() == pytest.approx(accuracy.tolist())
    assert filled["confidence"].tolist() == pytest.approx(mean_confidence.tolist())
    assert table["count"].sum() == len(pairs)


@given(PAIRS)
def test_ece_is_the_weighted_gap_of_the_bins(pairs):
    confidence, correct = arrays(pairs)
    accuracy, mean_confidence = calibration_curve(correct, confidence, n_bins=10)
    bins = np.searchsorted(np.linspace(0, 1, 11)[1:-1], confidence)
    shares = np.unique(bins, return_counts=True)[1] / len(pairs)
    expected = (shares * abs(accuracy - mean_confidence)).sum()
    assert expected_calibration_error(confidence, correct) == pytest.approx(expected, abs=1e-12)


def test_the_gap_is_correct_minus_incorrect():
    right, wrong, gap = logp_gap(np.array([-0.2, -0.4, -1.0]), np.array([True, True, False]))
    assert (right, wrong, gap) == pytest.approx((-0.3, -1.0, 0.7))
    assert np.isnan(logp_gap(np.array([-1.0]), np.array([True]))[2])


def samples(prompts=40, count=16, seed=0):
    """A policy that knows what it knows: an answer's probability is its chance of being right."""
    rng = np.random.default_rng(seed)
    skill = rng.beta(1, 1, prompts).repeat(count)
    correct = rng.random(prompts * count) < skill
    length = rng.integers(5, 30, prompts * count)
    return pd.DataFrame(
        {
            "step": 0,
            "set": "reduce",
            "prompt": np.arange(prompts).repeat(count),
            "correct": correct,
            "length": length,
            "logp": np.log(np.where(skill > 0, skill, 1e-9)) * length,
            "answer": np.where(correct, "7", rng.integers(10, 99, prompts * count).astype(str)),
        }
    )


def test_an_honest_policy_is_calibrated_and_an_overconfident_one_is_not():
    evals = samples()
    honest = calibration_table(evals).set_index("measure")["value"]
    bold = calibration_table(evals.assign(logp=evals["logp"] / 10)).set_index("measure")["value"]
    assert honest["ece_likelihood"] < 0.1 < bold["ece_likelihood"]
    assert honest["brier_likelihood"] < bold["brier_likelihood"]
    assert honest["auroc"] == pytest.approx(bold["auroc"], abs=0.002)
    assert 0 < bold["logp_gap"] < honest["logp_gap"]


def test_the_table_measures_responses_and_majorities():
    evals = samples()
    table = calibration_table(evals).set_index("measure")
    score = (evals["logp"] / evals["length"]).to_numpy()
    assert table.loc["auroc", "value"] == pytest.approx(roc_auc_score(evals["correct"], score))
    votes = majority_by_prompt(evals)
    assert table.loc["brier_majority", "value"] == pytest.approx(((votes["share"] - votes["accuracy"]) ** 2).mean())
    inside = (table["low"] <= table["value"] + 1e-12) & (table["value"] <= table["high"] + 1e-12)
    assert inside.drop(["ece_likelihood", "ece_majority"]).all()  # the ECE of a resample is biased upwards
    assert mean_logp(evals) == pytest.approx(score)


def test_majorities_need_answers():
    table = calibration_table(samples().drop(columns="answer"))
    assert not table["measure"].str.contains("majority").any()


def test_reliability_data_of_both_sources_account_for_every_response_and_prompt():
    table = reliability_table(samples())
    assert table.groupby("source")["count"].sum().to_dict() == {"likelihood": 640, "majority": 40}
    assert len(table) == 20
