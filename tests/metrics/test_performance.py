"""avg@k, pass@k, maj@k and their intervals, against enumeration and simulation."""

import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.metrics.majority import maj_at_ks, majority
from workbench.metrics.performance import (
    mean_table,
    pass_at_k,
    pass_at_k_table,
    performance_by_prompt,
    performance_table,
    prompt_accuracy,
    table_over_seeds,
)


def samples(prompts=10, count=6, steps=(0, 9), sets=("reduce", "countdown"), seed=0, answers=3):
    """Made-up evaluation samples in random order; an answer is right iff it is '0'."""
    rng = np.random.default_rng(seed)
    keys = itertools.product(steps, sets, range(prompts), range(count))
    frame = pd.DataFrame(keys, columns=["step", "set", "prompt", "sample"])
    frame["answer"] = rng.integers(0, answers, len(frame)).astype(str)
    frame["correct"] = frame["answer"] == "0"
    return frame.sample(frac=1, random_state=0)


def plurality(answers, correct):
    """Oracle: expected accuracy of the most frequent non-empty answer, ties at random, by a plain count."""
    votes = {answer: answers.count(answer) for answer in set(answers) - {""}}
    best = [answer for answer in votes if votes[answer] == max(votes.values())]
    right = dict(zip(answers, correct, strict=True))
    return sum(right[answer] for answer in best) / len(best) if best else 0.0


@given(st.lists(st.booleans(), min_size=1, max_size=9), st.data())
def test_pass_at_k_is_the_share_of_k_subsets_with_a_success(correct, data):
    k = data.draw(st.integers(1, len(correct)))
    subsets = [any(chosen) for chosen in itertools.combinations(correct, k)]
    assert pass_at_k(np.array([correct]), k)[0] == pytest.approx(np.mean(subsets))


def test_pass_at_k_agrees_with_simulated_draws():
    correct = np.zeros((3, 64), dtype=bool)
    for row, successes in enumerate((1, 7, 30)):
        correct[row, :successes] = True
    rng = np.random.default_rng(0)
    for k in (2, 8, 32):
        hits = rng.permuted(np.repeat(correct, 4000, axis=0), axis=1)[:, :k].any(1).reshape(3, 4000).mean(1)
        assert pass_at_k(correct, k) == pytest.approx(hits, abs=0.03)


def test_pass_at_k_refuses_more_than_there_are():
    with pytest.raises(ValueError, match="k = 5"):
        pass_at_k(np.ones((2, 4), dtype=bool), 5)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(["", "a", "b", "c"]), min_size=1, max_size=8), st.data())
def test_maj_at_k_is_the_mean_over_all_k_subsets(answers, data):
    right = data.draw(st.fixed_dictionaries({answer: st.sampled_from([0.0, 1.0]) for answer in "abc"}))
    correct = [right.get(answer, 0.0) for answer in answers]
    ks = list(range(1, len(answers) + 1))
    expected = [
        np.mean([plurality(list(a), c) for a, c in (zip(*s, strict=True) for s in itertools.combinations(pairs, k))])
        for k in ks
        for pairs in [list(zip(answers, correct, strict=True))]
    ]
    assert maj_at_ks(answers, np.array(correct), ks) == pytest.approx(expected, abs=1e-12)


def test_maj_at_k_of_64_samples_agrees_with_simulated_votes():
    rng = np.random.default_rng(1)
    answers = rng.choice(["7", "8", "9", "10", "11", ""], p=[0.28, 0.27, 0.2, 0.1, 0.1, 0.05], size=64).tolist()
    correct = np.array([answer == "7" for answer in answers], dtype=float)
    ks = [4, 16, 64]
    for k, value in zip(ks, maj_at_ks(answers, correct, ks), strict=True):
        drawn = (rng.permutation(64)[:k] for _ in range(4000))
        simulated = np.mean([plurality([answers[i] for i in rows], correct[rows].tolist()) for rows in drawn])
        assert value == pytest.approx(simulated, abs=0.03)


def test_maj_at_k_keeps_its_digits_with_a_thousand_samples():
    answers, correct = ["a"] * 500 + ["b"] * 500, np.repeat([1.0, 0.0], 500)
    assert maj_at_ks(answers, correct, [1, 2, 301, 1000]) == pytest.approx([0.5] * 4, rel=1e-9)
    assert maj_at_ks([str(i) for i in range(1000)], np.r_[1.0, np.zeros(999)], [64]) == pytest.approx([0.001])


def test_maj_at_k_refuses_more_than_there_are():
    with pytest.raises(ValueError, match="k ="):
        maj_at_ks(["a", "b"], np.ones(2), [3])


def test_the_majority_shares_ties_and_ignores_missing_answers():
    assert majority(["a", "b", "", ""], np.array([1.0, 0, 0, 0])) == (0.25, 0.5)
    assert majority(["", ""], np.zeros(2)) == (0.0, 0.0)


def test_prompt_accuracy_counts_each_prompts_samples():
    evals = samples()
    table = prompt_accuracy(evals).set_index(["step", "set", "prompt"])
    chosen = evals.query("step == 9 and set == 'countdown' and prompt == 4")
    assert table.loc[(9, "countdown", 4), "accuracy"] == chosen["correct"].mean()
    assert table.loc[(9, "countdown", 4), "samples"] == 6


def test_the_pass_table_has_every_step_set_and_power_of_two():
    evals = samples()
    table = pass_at_k_table(evals)
    assert table.groupby(["step", "set"])["k"].apply(list).tolist() == [[1, 2, 4]] * 4
    first = table[(table["step"] == 0) & (table["set"] == "reduce")].set_index("k")
    assert first.loc[1, "value"] == pytest.approx(evals.query("step == 0 and set == 'reduce'")["correct"].mean())
    assert (table["low"] <= table["value"]).all()
    assert (table["value"] <= table["high"]).all()


def test_one_sample_makes_avg_pass_and_maj_the_same():
    table = performance_table(samples()).set_index(["step", "set", "measure", "k"])["value"]
    for step, name in itertools.product((0, 9), ("reduce", "countdown")):
        average = table[(step, name, "avg", 6)]
        assert table[(step, name, "pass", 1)] == pytest.approx(average)
        assert table[(step, name, "maj", 1)] == pytest.approx(average)
        assert table[(step, name, "maj", 2)] == pytest.approx(average)  # of two votes, a tie is a coin's toss
        assert table[(step, name, "pass", 6)] > average


def test_prompts_with_different_numbers_of_samples_are_measured_up_to_the_fewest():
    evals = samples(steps=(0,), sets=("reduce",))
    fewer = evals[(evals["prompt"] != 3) | (evals["sample"] < 5)]
    table = performance_table(fewer)
    assert sorted(table[table["measure"] == "pass"]["k"]) == [1, 2, 4, 5]


def test_performance_without_answers_has_no_majority():
    for evals in (samples().drop(columns="answer"), samples().assign(answer="")):
        assert set(performance_table(evals)["measure"]) == {"avg", "pass"}


def test_seeds_are_averaged_and_their_spread_widens_the_interval():
    seeds = [samples(seed=seed, answers=2 + 4 * seed).assign(seed=seed) for seed in range(3)]
    together = pd.concat(seeds)
    table = table_over_seeds(together).set_index(["step", "set", "measure", "k"])
    accuracy = together.groupby(["step", "set"])["correct"].mean()
    chosen = table.loc[(0, "reduce", "avg", 6)]
    assert chosen["value"] == pytest.approx(accuracy[(0, "reduce")])
    assert chosen["seeds"] == 3
    single = performance_table(seeds[0]).set_index(["step", "set", "measure", "k"]).loc[(0, "reduce", "avg", 6)]
    assert chosen["high"] - chosen["low"] > single["high"] - single["low"]


def test_seeds_on_different_prompts_are_refused():
    one, other = samples().assign(seed=0), samples(prompts=9).assign(seed=1)
    with pytest.raises(ValueError, match="different prompts"):
        table_over_seeds(pd.concat([one, other]))


def test_a_mean_table_leaves_undefined_prompts_out():
    by_prompt = pd.DataFrame({"set": "s", "value": [1.0, float("nan"), 3.0]})
    assert mean_table(by_prompt, ["set"])["value"].tolist() == [2.0]


def test_performance_by_prompt_has_one_row_per_prompt_measure_and_k():
    rows = performance_by_prompt(samples())
    assert len(rows) == 4 * 10 * (1 + 4 + 4)
    assert not rows.duplicated(["step", "set", "prompt", "measure", "k"]).any()
