"""Rank correlation, intervals and smoothing, against SciPy, coverage and closed form."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from workbench.metrics.series import ema
from workbench.metrics.statistics import bootstrap_clusters, bootstrap_interval, bootstrap_over_seeds, spearman


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=3, max_size=30))
def test_spearman_with_ties_is_that_of_scipy(pairs):
    x, y = map(list, zip(*pairs, strict=True))
    if len(set(x)) == 1 or len(set(y)) == 1:
        assert np.isnan(spearman(x, y))
        return
    assert spearman(x, y) == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)


def test_spearman_leaves_incomplete_pairs_out():
    assert spearman([1, 2, 3, np.nan], [2, 4, 6, 0]) == pytest.approx(1.0)
    assert np.isnan(spearman([], []))


def test_the_interval_covers_the_mean_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        low, high = bootstrap_interval(rng.random(60), resamples=300)
        covered += low <= 0.5 <= high
    assert 180 <= covered <= 200


def test_the_interval_leaves_undefined_values_out():
    values = np.arange(20.0)
    assert bootstrap_interval(np.r_[values, np.nan]) == bootstrap_interval(values)
    assert np.isnan(bootstrap_interval([np.nan])).all()


def test_samples_of_one_prompt_are_drawn_together():
    """64 copies of each prompt's value say no more than one: the interval is that of the prompts."""
    prompts = np.random.default_rng(1).normal(size=30)
    rows, clusters = np.repeat(prompts, 64), np.repeat(np.arange(30), 64)
    low, high = bootstrap_clusters(lambda chosen: np.array([rows[chosen].mean()]), clusters, resamples=1000)
    expected = bootstrap_interval(prompts)
    assert (low[0], high[0]) == pytest.approx(expected, abs=0.06)
    naive = bootstrap_interval(rows)
    assert high[0] - low[0] > 4 * (naive[1] - naive[0])


def test_the_interval_over_seeds_covers_the_mean_of_seeds_and_prompts():
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        values = rng.normal(size=(12, 1)) + rng.normal(size=(1, 30)) + rng.normal(size=(12, 30))
        low, high = bootstrap_over_seeds(values, resamples=300)
        covered += low <= 0 <= high
    assert 176 <= covered <= 200


def test_without_prompts_only_the_seeds_vary():
    values = np.tile(np.arange(20.0), (4, 1))
    assert bootstrap_over_seeds(values, prompts=False) == pytest.approx((9.5, 9.5))
    low, high = bootstrap_over_seeds(values)
    assert low < 9.5 < high


def test_one_seed_has_no_interval():
    with pytest.raises(ValueError, match="seeds"):
        bootstrap_over_seeds(np.ones((1, 5)))


def test_smoothing_is_a_weighted_sum_of_the_past():
    values = np.random.default_rng(0).normal(size=12)
    weights = 0.4 * 0.6 ** np.arange(12)
    weights[-1] = 0.6**11  # the first value starts the average
    assert ema(values)[-1] == pytest.approx((weights * values[::-1]).sum())
    assert ema(values, phi=0.0) == pytest.approx(values)


def test_smoothing_carries_over_gaps():
    smooth = ema([np.nan, 1.0, np.nan, 2.0])
    assert np.isnan(smooth[0])
    assert smooth[1:] == pytest.approx([1.0, 1.0, 1.4])
