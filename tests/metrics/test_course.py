"""The course of a run: stages and law on made-up curves, and what is left out where nothing can be told."""

import numpy as np
import pandas as pd
import pytest

from workbench.metrics.course import COURSE_METRICS, course_table
from workbench.metrics.series import ema


def run(steps=120, falls_until=40):
    """Entropy falls in a line, then stays; reward follows the law exactly with a = 0.5, b = 1.3."""
    step = np.arange(1, steps + 1)
    entropy = 0.1 + 0.02 * np.maximum(falls_until - step, 0)
    return pd.DataFrame({"step": step, "entropy/mean": entropy, "reward/correct": 1.3 - 0.5 * np.exp(entropy)})


def test_a_run_that_falls_and_stays():
    metrics = run()
    table = course_table(metrics).set_index("measure")
    value = table["value"]
    assert set(table.index) == {metric.name for metric in COURSE_METRICS}
    assert value["entropy_first"] == metrics["entropy/mean"][0]
    assert value["entropy_final"] == ema(metrics["entropy/mean"])[-1]
    assert value["knee_step"] == 40
    assert 40 <= value["plateau_step"] <= 55
    assert (value["law_a"], value["law_b"], value["law_ceiling"]) == pytest.approx((0.5, 1.3, 0.8))
    assert value["law_r2"] == pytest.approx(1.0)
    assert table.loc["law_ceiling", "low"] <= 0.8 + 1e-9 and table.loc["law_ceiling", "high"] >= 0.8 - 1e-9


def test_what_cannot_be_told_is_left_out():
    assert course_table(pd.DataFrame({"step": []})).empty
    assert set(course_table(run(5))["measure"]) == {"entropy_first", "entropy_final"}
    still = run().assign(**{"entropy/mean": 0.3})
    assert not course_table(still)["measure"].str.startswith(("law", "plateau")).any()
    foreign = run().drop(columns="reward/correct")
    assert "knee_step" in set(course_table(foreign)["measure"])
