"""Everything an evaluation says, in one table."""

from __future__ import annotations

import pandas as pd

from workbench.metrics.calibration import calibration_table
from workbench.metrics.diversity import diversity_table
from workbench.metrics.instructions import instruction_table
from workbench.metrics.performance import KEYS, performance_table
from workbench.metrics.prompt_entropy import prompt_entropy_table
from workbench.metrics.registry import Metric

_COLUMNS = [*KEYS, "measure", "k", "value", "low", "high"]


def evaluation_table(evals: pd.DataFrame) -> pd.DataFrame:
    """Performance, diversity, calibration and prompt entropy of every step and set: columns step, set, measure, k
    (samples, for avg, pass and maj; else missing), value, low, high (95 %, bootstrap over prompts).

    evals: one row per sample, as `Run.evals` gives them. Definitions: `performance_by_prompt`, `instruction_table`,
    `diversity_by_prompt`, `calibration_table`, `prompt_entropy_table` (`prompt_entropy` in nats and
    `prompt_entropy_ratio` to step 0, where that was evaluated). Measures whose columns are not stored are left out.
    """
    if evals.empty:
        return pd.DataFrame(columns=_COLUMNS)
    parts = [performance_table(evals), instruction_table(evals)]
    if "text" in evals:
        parts.append(diversity_table(evals))
    if {"logp", "length"} <= set(evals):
        parts.append(calibration_table(evals))
    if "prompt_entropy" in evals:
        entropy = prompt_entropy_table(evals)
        parts.append(entropy[[*KEYS, "value", "low", "high"]].assign(measure="prompt_entropy"))
        ratio = entropy[[*KEYS, "ratio", "ratio_low", "ratio_high"]].set_axis([*KEYS, "value", "low", "high"], axis=1)
        parts.append(ratio.dropna(subset="value").assign(measure="prompt_entropy_ratio"))
    table = pd.concat([part.reindex(columns=_COLUMNS) for part in parts if len(part)], ignore_index=True)
    table["k"] = table["k"].astype("Int64")
    return table.sort_values(KEYS, kind="stable", ignore_index=True)


_PROMPTS, _RESPONSES = "mean over the prompts of a set", "all responses of a set"
_LIKELIHOOD = "exp(mean log-prob per token) as the confidence of a response"
_MAJORITY = "share of the majority answer as the confidence of a prompt, expected accuracy of the majority as outcome"

EVALUATION_METRICS = [
    Metric(
        "avg", "fraction", "avg@k: share of correct samples, k = samples per prompt", _PROMPTS,
        "as a sign of capability: it rises when a policy merely grows sure of what it could do before",
    ),
    Metric(
        "pass", "fraction", "pass@k = 1 − C(n − c, k) / C(n, k), c of n samples correct (arXiv 2107.03374)", _PROMPTS,
        "for large k where answers can be guessed; at k = n it has the variance of a single draw",
    ),
    Metric(
        "maj", "fraction", "maj@k: expected accuracy of the most frequent of k answers, ties at random", _PROMPTS,
        "where few answers are possible, or many samples give none: those do not vote; left out beyond 1000 samples",
    ),
    Metric(
        "prompt_strict", "fraction", "share of responses that follow all their instructions, read as they are (IFEval)",
        _RESPONSES, "prompts with many instructions count like those with one",
    ),
    Metric(
        "prompt_loose", "fraction", "the same where the best of eight variants of the response counts", _RESPONSES,
        "a variant drops the first or the last line, or asterisks: some instructions are met by that alone",
    ),
    Metric(
        "instruction_strict", "fraction", "Σ instructions followed / Σ instructions, responses as they are (IFEval)",
        "all instructions of a set", "instructions differ in difficulty: the set's mixture decides the level",
    ),
    Metric(
        "instruction_loose", "fraction", "the same where the best of eight variants of the response counts",
        "all instructions of a set", "the best variant may differ between the instructions of one response",
    ),
    Metric(
        "ngram_diversity", "1", "Π_{n=1..5} distinct n-grams / n-grams, responses of a prompt pooled", _PROMPTS,
        "across different numbers or lengths of responses and across tokenisations: it falls with more text",
    ),
    Metric(
        "self_bleu", "1", "mean BLEU-4 of each response against the others of its prompt; high is alike", _PROMPTS,
        "for short or formulaic responses, alike in words and different in content; plots show its negative",
    ),
    Metric(
        "distinct_answers", "count", "different final answers among the samples of a prompt", _PROMPTS,
        "across different numbers of samples; wrong answers count like right ones",
    ),
    Metric(
        "semantic_entropy", "nats", "−Σ p_c log p_c, p_c share of samples with answer c; none is an answer", _PROMPTS,
        "at most log(samples): few samples understate it",
    ),
    Metric(
        "semantic_entropy_probability", "nats", "the same with p_c ∝ Σ π(response) over different responses", _PROMPTS,
        "for long responses, where the likeliest one holds nearly all the sampled mass",
    ),
    Metric(
        "distinct_correct", "count", "different derivations among the correct samples of a prompt", _PROMPTS,
        "across different accuracies: more correct samples show more derivations",
    ),
    Metric(
        "logp_correct", "nats", "mean of log-prob per token", "correct responses of a set",
        "across temperatures and nuclei, which belong to the distribution sampled from",
    ),
    Metric(
        "logp_incorrect", "nats", "mean of log-prob per token", "incorrect responses of a set",
        "across temperatures and nuclei, which belong to the distribution sampled from",
    ),
    Metric(
        "logp_gap", "nats", "logp_correct − logp_incorrect", _RESPONSES,
        "when entropy falls: the whole scale shrinks, and the gap with it, although the order may stay; see auroc",
    ),
    Metric(
        "auroc", "1", "chance that a correct response has more log-prob per token than an incorrect one", _RESPONSES,
        "across prompts of unequal difficulty: telling easy from hard prompts is enough for a high value",
    ),
    Metric(
        "ece_likelihood", "1", f"Σ_b n_b/n · |accuracy − confidence| over 10 bins; {_LIKELIHOOD}", _RESPONSES,
        "as honesty about answers: per-token likelihood says how usual the wording is",
    ),
    Metric(
        "brier_likelihood", "1", f"mean (confidence − correct)²; {_LIKELIHOOD}", _RESPONSES,
        "across accuracies: a set that is half right cannot reach the values of one that is all right",
    ),
    Metric(
        "ece_majority", "1", f"Σ_b n_b/n · |accuracy − confidence| over 10 bins; {_MAJORITY}", "prompts of a set",
        "for few prompts: thin bins push it up",
    ),
    Metric(
        "brier_majority", "1", f"mean (confidence − outcome)²; {_MAJORITY}", "prompts of a set",
        "where hardly any sample gives an answer",
    ),
    Metric(
        "prompt_entropy", "nats", "mean entropy over a prompt's positions, teacher-forced, at temperature 1", _PROMPTS,
        "where prompts share a template, whose tokens count like any others",
    ),
    Metric(
        "prompt_entropy_ratio", "1", "prompt_entropy over that of step 0, same prompts; left out without step 0",
        _PROMPTS, "for few prompts or short ones: the policy before training may happen to be sure of them",
    ),
]  # fmt: skip
"""Every `measure` of `evaluation_table`."""
