"""Verdicts on made-up runs with known effects: nominal error rates, the right side, and nothing invented."""

import math

import numpy as np
import pytest
from scipy import stats

from workbench.study.claims import Claim, claims_table, comparison_note, evaluate, holm, interval, p_value, verdict
from workbench.study.effects import (
    EFFECTS,
    Across,
    Alike,
    Held,
    Moves,
    NotMeasured,
    Order,
    Scored,
    ScoresTogether,
    Together,
)

STEPS, LEVEL = 30, 0.3


class MadeUp:
    """Runs whose final entropy is a level per arm plus normal noise per seed and per step."""

    def __init__(self, levels: dict[str, float], seeds: int, spread: float = 0.05, rng=None):
        rng = rng or np.random.default_rng(0)
        self.curves = {
            arm: level + spread * rng.standard_normal((seeds, 1)) + 0.01 * rng.standard_normal((seeds, STEPS))
            for arm, level in levels.items()
        }

    def seeds(self, arm):
        return set(range(len(self.curves[arm]))) if arm in self.curves else set()

    def curve(self, arm, metric, seed):
        if metric != "entropy/mean":
            raise NotMeasured(f"{arm} did not record {metric}")
        return self.curves[arm][seed]

    def score(self, arm, measure, seed, where=None):
        return self.curves[arm][seed][::10]


def claim(effect):
    return Claim("made-up", str(effect), "nowhere", effect)


def rates(effect, levels, seeds=3, replays=800):
    """Shares of the verdicts over many replays with fresh seeds."""
    rng = np.random.default_rng(1)
    found = [evaluate(claim(effect), MadeUp(levels, seeds, rng=rng)).verdict for _ in range(replays)]
    return {verdict: found.count(verdict) / replays for verdict in ("reproduced", "contradicted", "inconclusive")}


def near(rate, nominal, replays=800):
    """Within four standard errors of a binomial share."""
    return abs(rate - nominal) < 4 * math.sqrt(max(nominal * (1 - nominal), 1e-4) / replays)


@pytest.mark.parametrize("seeds", [2, 3, 6])
def test_without_an_effect_either_verdict_is_given_at_its_nominal_rate(seeds):
    found = rates(Order("a", "b"), {"a": LEVEL, "b": LEVEL}, seeds)
    assert near(found["reproduced"], 0.025) and near(found["contradicted"], 0.025)


def test_an_effect_is_found_as_often_as_the_t_test_has_power():
    seeds, effect = 4, 0.15
    error = math.sqrt(2 * (0.05**2 + 0.01**2 / 10) / seeds)
    critical = stats.t.ppf(0.975, seeds - 1)
    power = stats.nct.sf(critical, seeds - 1, effect / error)
    assert near(rates(Order("a", "b"), {"a": LEVEL + effect, "b": LEVEL}, seeds)["reproduced"], power)
    assert near(rates(Order("b", "a"), {"a": LEVEL + effect, "b": LEVEL}, seeds)["contradicted"], power)


def test_at_the_edge_of_what_counts_as_held_a_target_is_reproduced_at_the_nominal_rate():
    found = rates(Held("a", target=0.25), {"a": 0.25 * 1.2}, 3)
    assert near(found["contradicted"], 0.025) and found["reproduced"] < 0.04
    assert rates(Held("a", target=0.3), {"a": 0.3}, 6, 200)["contradicted"] == 0


def test_one_seed_is_inconclusive_and_a_missing_arm_is_not_run():
    one = evaluate(claim(Order("a", "b")), MadeUp({"a": 1.0, "b": 0.0}, 1))
    assert one.verdict == "inconclusive" and one.mean == pytest.approx(1, abs=0.3) and math.isnan(one.low)
    missing = evaluate(claim(Order("a", "c")), MadeUp({"a": 1.0}, 3))
    assert missing.verdict == "not run" and missing.reason == "no finished run of c"
    unrecorded = evaluate(claim(Order("a", "a", metric="reward/mean")), MadeUp({"a": 1.0}, 3))
    assert unrecorded.verdict == "not run" and "did not record" in unrecorded.reason


def test_only_seeds_that_all_arms_have_are_paired():
    runs = MadeUp({"a": 1.0, "b": 0.0}, 3)
    runs.curves["b"] = runs.curves["b"][:2]
    found = evaluate(claim(Order("a", "b")), runs)
    assert found.seeds == (0, 1) and found.values == pytest.approx(
        [np.mean(runs.curves["a"][s][-10:]) - np.mean(runs.curves["b"][s][-10:]) for s in (0, 1)]
    )


def test_an_undefined_effect_has_no_verdict():
    runs = MadeUp({"a": 1.0, "b": 0.5}, 3)
    runs.curves["b"][1] = np.nan
    with pytest.warns(RuntimeWarning):
        found = evaluate(claim(Order("a", "b")), runs)
    assert found.verdict == "not run" and "no values" in found.reason


@pytest.mark.parametrize("region", [(0, math.inf), (-math.inf, 0), (0.8, 1.2)])
def test_the_p_value_and_the_interval_say_the_same(region):
    rng = np.random.default_rng(2)
    for centre in np.linspace(-1, 2, 40):
        values = centre + 0.2 * rng.standard_normal(3)
        low, high = interval(values)
        assert (p_value(region, values) < 0.025) == (verdict(region, low, high) == "reproduced")
    values = 0.1 + 0.2 * rng.standard_normal(5)
    oracle = stats.ttest_1samp(values, 0, alternative="greater").pvalue
    assert p_value((0, math.inf), values) == pytest.approx(oracle, rel=1e-12)
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert interval(values) == pytest.approx((expected.low, expected.high), rel=1e-12)


def test_holm_keeps_the_family_error_rate_and_less_than_bonferroni_loses():
    assert holm([0.001, 0.02, 0.006, math.nan]).tolist() == [True, True, True, False]
    assert holm([0.001, 0.03, 0.006]).tolist() == [True, False, True]
    rng = np.random.default_rng(3)
    false = np.mean([holm(rng.random(20)).any() for _ in range(2000)])
    assert near(false, 0.025, 2000)


def test_effects_on_curves_known_by_hand():
    runs = MadeUp({"a": 0.0, "b": 0.0, "c": 0.0}, 1)
    runs.curves["a"][0] = np.linspace(1.0, 0.0, STEPS)
    runs.curves["b"][0] = np.where(np.arange(STEPS) < 20, 0.0, 0.5)
    runs.curves["c"][0] = 2.0
    last, first = np.linspace(1, 0, STEPS)[-10:].mean(), np.linspace(1, 0, STEPS)[:3].mean()
    assert Order("b", "a").of(runs, 0) == pytest.approx(0.5 - last)
    assert Moves("a", up=False).of(runs, 0) == pytest.approx(last - first)
    assert Held("c", of_initial=0.5).of(runs, 0) == pytest.approx(2.0)
    assert Scored("c", "a", "pass@1").of(runs, 0) == pytest.approx(2.0 - np.linspace(1, 0, STEPS)[20])
    assert Alike("a", "b", "c").of(runs, 0) == pytest.approx(abs(last - 0.5) / abs(last - 2.0))
    assert ScoresTogether("a", "x", "y").of(runs, 0) == pytest.approx(1.0)
    assert Together("a", "entropy/mean", "entropy/mean").of(runs, 0) == pytest.approx(1.0)
    runs.curves["d"] = np.full((1, STEPS), 1.0)
    assert Together("a", "entropy/mean", "-entropy/mean").of(runs, 0) == pytest.approx(-1.0)
    assert Across(("a", "b", "c", "d"), "pass@1").of(runs, 0) == pytest.approx(1.0)
    assert len(EFFECTS) == 9


def test_the_table_shows_published_beside_measured_and_the_note_counts():
    runs = MadeUp({"a": 1.0, "b": 0.0}, 3)
    found = [evaluate(Claim("one", "a is above b", "Fig. 1", Order("a", "b"), published=0.5), runs),
             evaluate(claim(Order("b", "a")), runs), evaluate(claim(Order("b", "x")), runs)]  # fmt: skip
    table = claims_table(found)
    assert table["verdict"].tolist() == ["reproduced", "contradicted", "not run"]
    assert table.loc[0, "published"] == 0.5 and table["holm"].tolist() == [True, False, False]
    note = comparison_note(found)
    assert note.startswith("2 claims were tested") and "1 were reproduced; 1 of them remain" in note
