import numpy as np
import pytest
from scipy.stats import linregress

from workbench.metrics.law import fit_law


def noisy_run(n=120, a=0.2, b=0.8, noise=0.01, seed=0):
    rng = np.random.default_rng(seed)
    entropy = 0.05 + 0.6 * np.exp(-np.arange(n) / 30)
    return entropy, -a * np.exp(entropy) + b + noise * rng.standard_normal(n)


def test_an_exact_law_is_recovered_with_its_ceiling():
    entropy, performance = noisy_run(noise=0.0)
    fit = fit_law(entropy, performance)
    assert (fit.a, fit.b, fit.ceiling, fit.r2) == pytest.approx((0.2, 0.8, 0.6, 1.0))
    assert fit.ceiling_interval == pytest.approx((0.6, 0.6))
    assert fit.predict([0.0, 1.0]) == pytest.approx([0.6, 0.8 - 0.2 * np.e])


def test_it_is_linear_regression_on_the_exponential():
    entropy, performance = noisy_run(noise=0.05)
    fit, oracle = fit_law(entropy, performance), linregress(np.exp(entropy), performance)
    assert (-fit.a, fit.b, fit.r2) == pytest.approx((oracle.slope, oracle.intercept, oracle.rvalue**2))


def test_an_early_share_of_the_steps_is_fitted_alone():
    entropy, performance = noisy_run()
    performance[18:] = 99.0
    fit = fit_law(entropy, performance, share=0.15)
    assert fit.steps == 18
    assert fit.ceiling == pytest.approx(0.6, abs=0.1)


def test_gaps_are_left_out():
    entropy, performance = noisy_run()
    with_gaps = performance.copy()
    with_gaps[::3] = np.nan
    kept = ~np.isnan(with_gaps)
    fit, expected = fit_law(entropy, with_gaps), fit_law(entropy[kept], performance[kept])
    assert (fit.a, fit.b, fit.steps) == (expected.a, expected.b, 80)


def test_the_interval_of_the_ceiling_covers_about_as_often_as_it_says():
    fits = [fit_law(*noisy_run(noise=0.02, seed=seed), resamples=200) for seed in range(100)]
    covered = sum(fit.ceiling_interval[0] <= 0.6 <= fit.ceiling_interval[1] for fit in fits)
    assert 84 <= covered <= 100


def test_correlated_noise_widens_the_interval_of_blocks_and_not_that_of_single_steps():
    entropy, performance = noisy_run(n=200, noise=0.0)
    drift = np.zeros(200)
    for step, shock in enumerate(0.01 * np.random.default_rng(1).standard_normal(200)):
        drift[step] = 0.9 * drift[step - 1] + shock if step else shock

    def width(block):
        low, high = fit_law(entropy, performance + drift, block=block).ceiling_interval
        return high - low

    assert width(20) > 1.3 * width(1)


@pytest.mark.parametrize(
    ("entropy", "performance", "share", "says"),
    [
        ([0.1, 0.2], [1, 2], 1.0, "three steps"),
        ([0.1] * 5, range(5), 1.0, "differing"),
        ([1, 2, 3], [1, 2, 3], 0.0, "share"),
    ],
)
def test_what_cannot_be_fitted_is_refused(entropy, performance, share, says):
    with pytest.raises(ValueError, match=says):
        fit_law(entropy, performance, share)
