"""The one table of everything an evaluation measures, and the list of what it can hold."""

import pandas as pd

from tests.metrics.test_prompt_entropy import evals
from workbench.metrics.evaluation import EVALUATION_METRICS, evaluation_table

PLAIN = ["step", "set", "prompt", "sample", "correct"]


def test_every_measure_is_listed_and_every_listed_one_is_measured():
    table = evaluation_table(evals().assign(derivation="0,1"))
    names = [metric.name for metric in EVALUATION_METRICS]
    assert len(names) == len(set(names))
    assert set(table["measure"]) == set(names)
    assert all(metric.misleads and metric.mask and metric.definition for metric in EVALUATION_METRICS)


def test_one_row_per_measure_k_step_and_set():
    table = evaluation_table(pd.concat([evals(), evals().assign(set="countdown")]))
    assert not table.duplicated(["step", "set", "measure", "k"]).any()
    assert table["k"].notna().sum() == 4 * (1 + 3 + 3)
    assert (table["low"].isna() | (table["low"] <= table["high"])).all()


def test_what_is_not_stored_is_left_out():
    assert set(evaluation_table(evals()[PLAIN])["measure"]) == {"avg", "pass"}
    assert "self_bleu" not in set(evaluation_table(evals().drop(columns="text"))["measure"])
