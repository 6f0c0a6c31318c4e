"""The one table of everything an evaluation measures, and the list of what it can hold."""

import numpy as np
import pandas as pd

from tests.metrics.test_prompt_entropy import evals
from workbench.metrics.evaluation import EVALUATION_METRICS, evaluation_table

PLAIN = ["step", "set", "prompt", "sample", "correct"]


def test_every_measure_is_listed_and_every_listed_one_is_measured():
    counts = {"instructions": 2, "followed": 1, "followed_loose": 2}
    table = evaluation_table(evals().assign(derivation="0,1", **counts))
    names = [metric.name for metric in EVALUATION_METRICS]
    assert len(names) == len(set(names))
    assert set(table["measure"]) == set(names)
    assert all(metric.misleads and metric.mask and metric.definition for metric in EVALUATION_METRICS)


def test_one_row_per_measure_k_step_and_set():
    table = evaluation_table(pd.concat([evals(), evals().assign(set="countdown")]))
    assert not table.duplicated(["step", "set", "measure", "k"]).any()
    assert table["k"].notna().sum() == 4 * (1 + 3 + 3)
    assert (table["low"].isna() | (table["low"] <= table["high"])).all()


def test_an_evaluation_that_is_not_there_measures_nothing():
    assert evaluation_table(pd.DataFrame()).empty


def test_one_prompt_one_sample_one_token():
    """The smallest evaluation there is: nothing to compare, nothing that fails."""
    one = {"step": 0, "set": "reduce", "prompt": 0, "sample": 0, "text": "7", "answer": "7", "logp": -0.1, "length": 1}
    for correct in (True, False):
        table = evaluation_table(pd.DataFrame([one | {"correct": correct, "prompt_entropy": 0.5}])).set_index("measure")
        assert table.loc[["avg", "pass", "maj", "distinct_answers"], "value"].tolist() == [correct] * 3 + [1]
        assert table.loc[["self_bleu", "ngram_diversity", "auroc", "logp_gap"], "value"].isna().all()


def test_more_samples_than_a_vote_can_count_have_no_majority():
    rng = np.random.default_rng(0)
    many = pd.DataFrame({"step": 0, "set": "s", "prompt": 0, "sample": range(1200), "correct": rng.random(1200) < 0.5})
    table = evaluation_table(many.assign(answer=many["correct"].astype(str)))
    assert set(table["measure"]) == {"avg", "pass"}
    assert table.query("measure == 'pass' and k == 1200")["value"].item() == 1


def test_without_step_0_there_is_no_ratio_to_it():
    later = evals().query("step == 20")
    assert "prompt_entropy" in set(evaluation_table(later)["measure"])
    assert "prompt_entropy_ratio" not in set(evaluation_table(later)["measure"])


def test_what_is_not_stored_is_left_out():
    assert set(evaluation_table(evals()[PLAIN])["measure"]) == {"avg", "pass"}
    assert "self_bleu" not in set(evaluation_table(evals().drop(columns="text"))["measure"])
