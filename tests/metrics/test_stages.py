import numpy as np
import pytest

from workbench.metrics.stages import plateau_start, smoothed_slope, stage_of_steps, two_segments


def falling_then_flat(knee=60, n=200, noise=0.0, seed=0):
    steps = np.arange(n)
    return np.maximum(0.5 - 0.4 * steps / knee, 0.1) + noise * np.random.default_rng(seed).standard_normal(n)


def test_the_slope_is_that_of_a_line_fitted_in_the_window():
    values = np.random.default_rng(0).standard_normal(30).cumsum()
    values[7] = np.nan
    slope = smoothed_slope(values, window=4)
    for step in range(30):
        at = np.arange(max(0, step - 4), min(30, step + 5))
        at = at[~np.isnan(values[at])]
        assert slope[step] == pytest.approx(np.polyfit(at, values[at], 1)[0])


@pytest.mark.parametrize("noise", [0.0, 0.002])
def test_the_plateau_starts_where_entropy_stops_falling(noise):
    start = plateau_start(falling_then_flat(noise=noise))
    assert abs(start - 60) <= 12  # the window reaches ten steps to either side


def test_a_pause_shorter_than_hold_is_no_plateau():
    pause = np.concatenate([np.linspace(0.5, 0.4, 40), np.full(30, 0.4), np.linspace(0.4, 0.1, 60), np.full(80, 0.1)])
    assert plateau_start(pause, window=2, hold=20) == pytest.approx(40, abs=3)
    assert plateau_start(pause, window=2, hold=40) == pytest.approx(130, abs=3)


def test_a_run_that_goes_on_falling_or_never_falls_has_no_plateau():
    assert plateau_start(np.linspace(1, 0, 100)) is None
    assert plateau_start(np.full(100, 0.3)) is None
    assert plateau_start([0.3, 0.2]) is None
    assert plateau_start([]) is None


def test_two_segments_find_the_knee():
    assert abs(two_segments(falling_then_flat(noise=0.01)) - 60) <= 4
    gaps = falling_then_flat(noise=0.01)
    gaps[::7] = np.nan
    assert abs(two_segments(gaps) - 60) <= 4
    with pytest.raises(ValueError, match="11 steps"):
        two_segments(np.zeros(10))


def test_every_step_has_its_stage():
    entropy = falling_then_flat()
    start = plateau_start(entropy)
    assert stage_of_steps(entropy) == ["rising"] * start + ["plateau"] * (200 - start)
    assert set(stage_of_steps(np.linspace(1, 0, 100))) == {"rising"}
