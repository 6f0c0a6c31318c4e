"""Diversity in words, answers and derivations, against nltk and naive loops."""

import math
import warnings
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu

from workbench.metrics.bleu import ngram_diversity, self_bleu, words
from workbench.metrics.diversity import (
    distinct_answers,
    distinct_correct,
    diversity_by_prompt,
    diversity_table,
    semantic_entropy,
)

RESPONSES = st.lists(st.lists(st.sampled_from("abcd"), max_size=12), min_size=2, max_size=6)


def nltk_self_bleu(responses):
    smooth = SmoothingFunction().method1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return [
            sentence_bleu(responses[:i] + responses[i + 1 :], hypothesis, smoothing_function=smooth)
            for i, hypothesis in enumerate(responses)
        ]


@settings(max_examples=200, deadline=None)
@given(RESPONSES)
def test_self_bleu_is_nltks_sentence_bleu_against_all_others(responses):
    assert self_bleu(responses) == pytest.approx(nltk_self_bleu(responses), rel=1e-9, abs=1e-12)


def test_self_bleu_of_long_responses_is_nltks():
    rng = np.random.default_rng(0)
    responses = [rng.choice(list("abcdefgh"), size=rng.integers(40, 90)).tolist() for _ in range(12)]
    assert self_bleu(responses) == pytest.approx(nltk_self_bleu(responses), rel=1e-9)


def test_self_bleu_of_copies_is_one_and_of_strangers_zero():
    assert self_bleu([list("abcdef")] * 3) == pytest.approx(1.0)
    assert self_bleu([list("abcde"), list("vwxyz")]) == pytest.approx(0.0)
    assert np.isnan(self_bleu([list("abc")])).all()


@given(RESPONSES, st.integers(1, 3))
def test_ngram_diversity_counts_every_order(responses, order):
    expected = 1.0
    for n in range(1, order + 1):
        grams = [tuple(r[i : i + n]) for r in responses for i in range(len(r) - n + 1)]
        expected = expected * len(set(grams)) / len(grams) if grams else float("nan")
    assert ngram_diversity(responses, order) == pytest.approx(expected, nan_ok=True)


def test_ngrams_do_not_cross_from_one_response_to_the_next():
    assert ngram_diversity([["a", "b"], ["a", "b"]], order=2) == pytest.approx(2 / 4 * 1 / 2)


def test_words_are_runs_and_single_signs():
    assert words("2+6-1 = 11#\n") == ["2", "+", "6", "-", "1", "=", "11", "#"]


@given(st.lists(st.sampled_from(["", "7", "8", "9"]), min_size=1, max_size=20))
def test_semantic_entropy_is_that_of_the_answers_shares(answers):
    shares = [count / len(answers) for count in Counter(answers).values()]
    assert semantic_entropy(answers) == pytest.approx(-sum(p * math.log(p) for p in shares), abs=1e-12)


def test_semantic_entropy_by_probability_adds_up_each_texts_mass_once():
    answers, texts = ["7", "7", "7", "8"], ["a7", "b7", "a7", "c8"]
    mass = {"7": math.exp(-1.0) + math.exp(-2.0), "8": math.exp(-1.5)}
    shares = [m / sum(mass.values()) for m in mass.values()]
    expected = -sum(p * math.log(p) for p in shares)
    logp = np.array([-1.0, -2.0, -1.0, -1.5])
    assert semantic_entropy(answers, logp, texts) == pytest.approx(expected)
    assert semantic_entropy(answers, logp - 5000, texts) == pytest.approx(expected)


def test_answers_that_differ_in_a_nul_are_different():
    assert semantic_entropy(["7", "7\0"]) == pytest.approx(math.log(2))
    assert semantic_entropy(["7", "8"], np.zeros(2), ["a", "a\0"]) == pytest.approx(math.log(2))


def test_distinct_counts_ignore_what_is_missing():
    assert distinct_answers(["7", "7", "", "8"]) == 2
    assert distinct_correct(["0,1", "1,0", "", "2,2"], [True, True, True, False]) == 2


def frame():
    rows = [
        (0, "reduce", 0, "2+2=4 #", "4", -1.0, True, "0"),
        (0, "reduce", 0, "4 + 0 = 4 #", "4", -2.0, True, "1"),
        (0, "reduce", 1, "1 + 1 = 3 #", "3", -1.0, False, ""),
        (0, "reduce", 1, "no idea at all", "", -9.0, False, ""),
    ]
    return pd.DataFrame(rows, columns=["step", "set", "prompt", "text", "answer", "logp", "correct", "derivation"])


def test_the_table_averages_over_prompts():
    by_prompt = diversity_by_prompt(frame()).set_index(["measure", "prompt"])["value"]
    assert by_prompt["distinct_correct"].tolist() == [2, 0]
    assert by_prompt["distinct_answers"].tolist() == [1, 1]
    assert by_prompt["semantic_entropy"].tolist() == pytest.approx([0.0, math.log(2)])
    table = diversity_table(frame()).set_index("measure")
    assert set(table.index) == {
        "ngram_diversity", "self_bleu", "distinct_answers", "semantic_entropy", "semantic_entropy_probability",
        "distinct_correct",
    }  # fmt: skip
    assert table.loc["self_bleu", "value"] == pytest.approx(by_prompt["self_bleu"].mean())


def test_measures_without_their_columns_are_left_out():
    table = diversity_table(frame().drop(columns=["answer", "derivation"]))
    assert set(table["measure"]) == {"ngram_diversity", "self_bleu"}
    silent = diversity_table(frame().assign(answer=""))
    assert set(silent["measure"]) == {"ngram_diversity", "self_bleu", "distinct_correct"}
    mixed = pd.concat([frame(), frame().drop(columns="derivation").assign(set="aime")])
    assert set(diversity_table(mixed).query("measure == 'distinct_correct'")["set"]) == {"reduce"}
