"""Advantages tilted by perplexity and by position."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.methods.hand_made import hand_made
from workbench.config import ConfigError, make_config
from workbench.methods import Progress
from workbench.methods.shaping import PerplexityShaping, PositionShaping, relative_log_perplexity

NOW = Progress(seed=0, step=1, steps=100, epoch=1, epochs=1)
LOGPPL = [[0.2, 0.3, 0.25, 0.35, 4.0], [1.0, 1.0, 1.0, 1.0, 1.0], [0.5, 0.9, 0.1, 2.0, 1.1]]
LENGTHS = [1, 3, 2, 1, 4] * 3
SIGNS = [1.0, -1.0, 0.0, 2.0, -0.5] * 3


def batch():
    """Responses whose mean −log π_old is LOGPPL, token by token a little off it."""
    flat = [v for row in LOGPPL for v in row]
    old = [-(v + 0.01 * (2 * t - n + 1)) for v, n in zip(flat, LENGTHS, strict=True) for t in range(n)]
    advantage = [a for a, n in zip(SIGNS, LENGTHS, strict=True) for _ in range(n)]
    return hand_made([[1, 0, 1, 0, 1]] * 3, LENGTHS, tokens={"old_logp": old, "advantage": advantage})


def naive_w():
    """w and inlier of each response, by numpy."""
    out = []
    for row in LOGPPL:
        q1, q3 = np.quantile(row, [0.25, 0.75])
        inside = [v for v in row if q1 - 1.5 * (q3 - q1) - 1e-9 <= v <= q3 + 1.5 * (q3 - q1) + 1e-9]
        spread = np.std(inside)
        out += [((v - np.mean(inside)) / (spread if spread > 1e-6 else 1), v in inside) for v in row]
    return out


def shaped(method, r, step=1):
    method.begin(replace(NOW, step=step))
    return method.advantage(r, r.tokens.advantage)


def test_perplexities_are_standardised_by_the_inliers_of_their_group():
    w, inlier = relative_log_perplexity(batch())
    assert w.tolist() == pytest.approx([v for v, _ in naive_w()], rel=1e-9, abs=1e-12)
    assert inlier.tolist() == [ok for _, ok in naive_w()]
    assert not inlier[4] and inlier.sum() == 14, "the 4.0 is the one outlier"
    assert w[5:10].tolist() == [0] * 5, "a group of equal perplexities has no order"


@pytest.mark.parametrize("strength", [0.01, 0.1, 0.3])
@pytest.mark.parametrize(("variant", "sign"), [("low", -1), ("high", 1)])
def test_likely_or_unlikely_responses_count_more(strength, variant, sign):
    r = batch()
    got = shaped(PerplexityShaping(strength=strength, variant=variant), r)
    weights = [min(1.2, max(0.8, 1 + sign * strength * w)) for w, _ in naive_w()]
    assert any(w in (0.8, 1.2) for w in weights), "the outlier must reach the bound"
    expected = [a * w for a, w, n in zip(SIGNS, weights, LENGTHS, strict=True) for _ in range(n)]
    assert got.tolist() == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_the_additive_variant_shifts_magnitudes_and_drops_outliers():
    r = batch()
    method = PerplexityShaping(strength=0.1, variant="additive")
    shift = [0.1 * min(2, max(-2, w)) for w, _ in naive_w()]
    expected = [a - s * np.sign(a) for a, s, n in zip(SIGNS, shift, LENGTHS, strict=True) for _ in range(n)]
    assert shaped(method, r).tolist() == pytest.approx(expected, rel=1e-9, abs=1e-12)
    keep = method.keep(r, torch.ones(15, dtype=torch.bool))
    assert keep.tolist() == [ok for _, ok in naive_w()]
    assert PerplexityShaping().keep(r, keep) is keep, "only this variant drops any"


def test_the_released_code_leaves_advantages_as_they_are():
    r = batch()
    assert shaped(PerplexityShaping(strength=0.1, variant="bug_compat"), r) is r.tokens.advantage
    assert shaped(PerplexityShaping(strength=0), r) is r.tokens.advantage


def test_weights_of_a_group_without_outliers_average_one():
    r = batch()
    got = shaped(PerplexityShaping(strength=0.01), r.with_tokens(advantage=torch.ones_like(r.tokens.advantage)))
    per_response = r.mean_by_sequence(got)[10:]
    assert per_response.mean().item() == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize(("variant", "slope"), [("late", 15.0), ("early", -15.0)])
@pytest.mark.parametrize("strength", [0.1, 0.05, 3.0])
def test_the_position_bonus_is_a_sigmoid_bounded_by_half_the_advantage(variant, slope, strength):
    got = shaped(PositionShaping(variant=variant, strength=strength), batch()).tolist()
    expected = []
    for a, n in zip(SIGNS, LENGTHS, strict=True):
        for t in range(n):
            bonus = strength / (1 + math.exp(-slope * (t / n - 0.5)))
            expected.append(a + np.sign(a) * min(bonus, 0.5 * abs(a)))
    assert got == pytest.approx(expected, rel=1e-12)


def test_no_advantage_changes_sign_and_zero_stays():
    r = batch()
    got = shaped(PositionShaping(strength=50.0), r)
    assert torch.equal(got.sign(), r.tokens.advantage.sign())
    assert (got.abs() <= 1.5 * r.tokens.advantage.abs()).all()


@pytest.mark.parametrize("method", [PerplexityShaping, PositionShaping])
def test_shaping_acts_strictly_between_start_and_stop(method):
    r = batch()
    acts = [not torch.equal(shaped(method(start=2, stop=5), r, step), r.tokens.advantage) for step in range(1, 8)]
    assert acts == [False, False, True, True, False, False, False]
    assert not torch.equal(shaped(method(start=2), r, 100), r.tokens.advantage), "no stop: to the end"
    assert not torch.equal(shaped(method(), r, 1), r.tokens.advantage), "from the first step"


@pytest.mark.parametrize("name", ["perplexity_shaping", "position_shaping"])
def test_windows_that_hold_no_step_are_refused_or_cautioned(name):
    def config(**parameters):
        return make_config({}, {"methods": ["grpo", {"name": name, **parameters}], "training.steps": 50})

    with pytest.raises(ConfigError, match="in none"):
        config(start=3, stop=4)
    assert "is inert: start is 50" in config(start=50).cautions()[0]
    assert config(start=49).cautions() == []
