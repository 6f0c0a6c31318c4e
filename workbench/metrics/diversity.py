"""Diversity of the responses to a prompt: in words, in answers, in derivations.

Tables take evaluation samples as `Run.evals` gives them: one row per sample with `step, set, prompt, text` and, as far
as they exist, `answer, logp, correct, derivation`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from workbench.metrics.bleu import DIVERSITY_ORDER, bleu_of, diversity_of, ngrams, words
from workbench.metrics.performance import KEYS, has_answers, mean_table


def distinct_answers(answers: Sequence[str]) -> int:
    """Number of different answers given; no answer ('') is none."""
    return len(set(answers) - {""})


def semantic_entropy(answers: Sequence[str], logp: np.ndarray | None = None, texts: Sequence[str] = ()) -> float:
    """H = −Σ_c p_c log p_c in nats over clusters c of responses that mean the same, here: have the same answer.

    Without `logp`, p_c is the share of samples in c (discrete semantic entropy, Farquhar et al. 2024,
    doi 10.1038/s41586-024-07421-0 (K)). With `logp` [n], the log-probabilities of the responses, p_c ∝ Σ exp(logp) over
    the different `texts` in c (arXiv 2302.09664 (K); a text sampled twice counts once (I)). That mode knows only the
    mass that was sampled, and short responses dominate it. No answer ('') is one cluster of its own (I).
    """
    cluster = pd.factorize(np.array(answers, dtype=object))[0]
    if logp is None:
        mass = np.bincount(cluster).astype(float)
    else:
        logp = np.asarray(logp, dtype=float)
        once = ~pd.Series(texts, dtype=object).duplicated().to_numpy()
        mass = np.bincount(cluster[once], weights=np.exp(logp[once] - logp.max()))
    shares = mass[mass > 0] / mass.sum()
    return float(-(shares * np.log(shares)).sum()) + 0.0


def distinct_correct(derivations: Sequence[str], correct: Sequence[bool]) -> int:
    """Number of different derivations among the correct responses; '' (no valid derivation) is none."""
    return len({derivation for derivation, right in zip(derivations, correct, strict=True) if right} - {""})


def diversity_by_prompt(evals: pd.DataFrame, tokenize: Callable[[str], list] = words) -> pd.DataFrame:
    """Every measure of diversity for every prompt: columns step, set, prompt, measure, value.

    | measure | unit | definition |
    |---|---|---|
    | `ngram_diversity` | 1 | `ngram_diversity`, N = 5, of the prompt's responses |
    | `self_bleu` | 1 | mean of `self_bleu`; published plots show its negative |
    | `distinct_answers` | count | `distinct_answers`, of all samples |
    | `semantic_entropy` | nats | `semantic_entropy` over the samples' answers |
    | `semantic_entropy_probability` | nats | the same, weighted by the responses' probabilities |
    | `distinct_correct` | count | `distinct_correct`, where the task tells derivations apart |

    Measures whose columns are not stored are left out, and those of answers where a set has none. tokenize: text ->
    tokens, for the first two.
    """
    rows = []
    for key, of_set in evals.groupby(KEYS, sort=True):
        answered = has_answers(of_set)
        # Samples of several tasks in one frame: a task without derivations has none there.
        derived = "derivation" in of_set and of_set["derivation"].notna().all()
        for prompt, samples in of_set.groupby("prompt", sort=True):
            measures = _in_words(samples, tokenize) | (_in_answers(samples) if answered else {})
            if derived:
                measures["distinct_correct"] = distinct_correct(samples["derivation"], samples["correct"])
            rows += [(*key, prompt, measure, float(value)) for measure, value in measures.items()]
    return pd.DataFrame(rows, columns=[*KEYS, "prompt", "measure", "value"])


def diversity_table(evals: pd.DataFrame, tokenize: Callable[[str], list] = words) -> pd.DataFrame:
    """Means over prompts of `diversity_by_prompt`: columns step, set, measure, value, low, high (95 %, bootstrap over
    prompts). Prompts for which a measure is undefined (NaN) are left out of its mean."""
    return mean_table(diversity_by_prompt(evals, tokenize), [*KEYS, "measure"])


def _in_words(samples: pd.DataFrame, tokenize: Callable[[str], list]) -> dict[str, float]:
    found = ngrams([tokenize(text) for text in samples["text"]], DIVERSITY_ORDER)
    return {"ngram_diversity": diversity_of(found), "self_bleu": bleu_of(found, len(samples)).mean()}


def _in_answers(samples: pd.DataFrame) -> dict[str, float]:
    answers = samples["answer"].tolist()
    measures = {"distinct_answers": distinct_answers(answers), "semantic_entropy": semantic_entropy(answers)}
    if "logp" in samples:
        logp, texts = samples["logp"].to_numpy(), samples["text"].tolist()
        measures["semantic_entropy_probability"] = semantic_entropy(answers, logp, texts)
    return measures
