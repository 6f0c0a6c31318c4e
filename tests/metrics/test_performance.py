import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.metrics.performance import bootstrap_interval, pass_at_k, pass_at_k_table


@given(st.lists(st.booleans(), min_size=1, max_size=9), st.data())
def test_pass_at_k_is_the_share_of_k_subsets_with_a_success(correct, data):
    k = data.draw(st.integers(1, len(correct)))
    subsets = [any(chosen) for chosen in itertools.combinations(correct, k)]
    assert pass_at_k(np.array([correct]), k)[0] == pytest.approx(np.mean(subsets))


def test_pass_at_k_refuses_more_than_there_are():
    with pytest.raises(ValueError, match="k = 5"):
        pass_at_k(np.ones((2, 4), dtype=bool), 5)


def test_the_interval_covers_the_mean_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        low, high = bootstrap_interval(rng.random(60), resamples=300)
        covered += low <= 0.5 <= high
    assert 180 <= covered <= 200


def test_the_table_has_every_step_set_and_power_of_two():
    rng = np.random.default_rng(0)
    rows = [
        {"step": step, "set": name, "prompt": prompt, "sample": sample, "correct": rng.random() < 0.3}
        for step, name, prompt, sample in itertools.product((0, 9), ("reduce", "countdown"), range(10), range(6))
    ]
    evals = pd.DataFrame(rows).sample(frac=1, random_state=0)
    table = pass_at_k_table(evals)
    assert table.groupby(["step", "set"])["k"].apply(list).tolist() == [[1, 2, 4]] * 4
    first = table[(table["step"] == 0) & (table["set"] == "reduce")].set_index("k")
    assert first.loc[1, "value"] == pytest.approx(evals.query("step == 0 and set == 'reduce'")["correct"].mean())
    assert (table["low"] <= table["value"]).all()
    assert (table["value"] <= table["high"]).all()
