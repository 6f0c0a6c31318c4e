"""Calibration: does the policy's own probability tell correct responses from incorrect ones, and is it honest?

Confidence is never verbal: it is the mean log-prob per token of a response, or the share of the majority answer. Tables
take evaluation samples as `Run.evals` gives them: one row per sample with `step, set, prompt, correct, logp, length`
and, for the majority share, `answer`. `logp` is that of the distribution sampled from, so temperature and nucleus
shift every number here: compare only evaluations that share both.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from workbench.metrics.majority import majority
from workbench.metrics.performance import KEYS, has_answers
from workbench.metrics.statistics import bootstrap_clusters

BINS = 10


def mean_logp(evals: pd.DataFrame) -> np.ndarray:
    """Mean log-prob per token of every response, end mark included: logp / length, in nats [n]."""
    return (evals["logp"] / evals["length"]).to_numpy(dtype=float)


def logp_gap(score: np.ndarray, correct: np.ndarray) -> tuple[float, float, float]:
    """(mean of the correct, mean of the incorrect, gap = correct − incorrect) of score [n], in its unit.

    With `mean_logp` as the score: arXiv 2511.05993 reads overconfidence off means that move towards 0 and
    miscalibration off a shrinking gap (S); the scalar gap is (I). NaN where there are no such responses.
    """
    right, wrong = score[correct], score[~correct]
    means = [float(part.mean()) if len(part) else float("nan") for part in (right, wrong)]
    return means[0], means[1], means[0] - means[1]


def auroc(score: np.ndarray, positive: np.ndarray) -> float:
    """Probability that a random positive scores above a random negative, a tie counting one half (Mann–Whitney U (K)).

    score: float [n]; positive: bool [n]. NaN when one of the two classes is empty.
    """
    count = int(positive.sum())
    if count in (0, len(positive)):
        return float("nan")
    _, place, sizes = np.unique(score, return_inverse=True, return_counts=True)
    rank = (np.cumsum(sizes) - (sizes - 1) / 2)[place]  # average rank of tied scores, from 1
    return float((rank[positive].sum() - count * (count + 1) / 2) / (count * (len(positive) - count)))


def brier(confidence: np.ndarray, outcome: np.ndarray) -> float:
    """Mean squared difference of confidence [n] and outcome [n], both in [0, 1] (Brier 1950 (K))."""
    return float(np.mean((confidence - outcome) ** 2))


def reliability(confidence: np.ndarray, outcome: np.ndarray, bins: int = BINS) -> pd.DataFrame:
    """Confidence against accuracy in `bins` bins of equal width: low, high, count, mean confidence, mean accuracy.

    confidence [n] in [0, 1]; outcome [n] in [0, 1], fractions allowed. A bin is (low, high], the first one includes 0;
    empty bins have count 0 and NaN means.
    """
    edges = np.linspace(0, 1, bins + 1)
    count, (means, accuracies) = _binned(confidence, outcome, edges)
    columns = {"low": edges[:-1], "high": edges[1:], "count": count, "confidence": means, "accuracy": accuracies}
    return pd.DataFrame(columns)


def expected_calibration_error(confidence: np.ndarray, outcome: np.ndarray, bins: int = BINS) -> float:
    """ECE = Σ_b (n_b / n) · |accuracy_b − confidence_b| over the bins of `reliability` (arXiv 1706.04599, eq. 3)."""
    count, (means, accuracies) = _binned(confidence, outcome, np.linspace(0, 1, bins + 1))
    return float(np.nansum(count * np.abs(accuracies - means)) / len(confidence))


def _binned(confidence: np.ndarray, outcome: np.ndarray, edges: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    """Count [bins] and means of confidence and of outcome ([bins] each, NaN where a bin is empty)."""
    bins = len(edges) - 1
    bin_of = np.searchsorted(edges[1:-1], confidence)
    count = np.bincount(bin_of, minlength=bins)
    filled = np.where(count > 0, count, np.nan)
    return count, [np.bincount(bin_of, weights=values, minlength=bins) / filled for values in (confidence, outcome)]


def majority_by_prompt(evals: pd.DataFrame) -> pd.DataFrame:
    """Confidence and outcome of every prompt's majority answer (see `majority`): columns step, set, prompt, share,
    accuracy. A prompt without any answer has share 0 and accuracy 0."""
    rows = [
        (*key, *majority(samples["answer"].tolist(), samples["correct"].to_numpy(dtype=float)))
        for key, samples in evals.groupby([*KEYS, "prompt"], sort=True)
    ]
    return pd.DataFrame(rows, columns=[*KEYS, "prompt", "share", "accuracy"])


def reliability_table(evals: pd.DataFrame, bins: int = BINS) -> pd.DataFrame:
    """Data of the reliability diagrams: the columns of `reliability` for each step, set and source of confidence.

    source: `likelihood` (exp of the mean log-prob of each response against its correctness) and, where answers are
    stored, `majority` (share of the majority answer of each prompt against its accuracy).
    """
    parts = []
    for (step, name), samples in evals.groupby(KEYS, sort=True):
        for source, (confidence, outcome) in _sources(samples).items():
            table = reliability(confidence, outcome, bins)
            parts.append(table.assign(step=step, set=name, source=source))
    columns = [*KEYS, "source", "low", "high", "count", "confidence", "accuracy"]
    return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)


def calibration_table(evals: pd.DataFrame, bins: int = BINS, resamples: int = 200) -> pd.DataFrame:
    """Every measure of calibration: columns step, set, measure, value, low, high (95 %, bootstrap over prompts).

    | measure | unit | definition |
    |---|---|---|
    | `logp_correct`, `logp_incorrect` | nats | mean over such responses of `mean_logp` |
    | `logp_gap` | nats | the first minus the second |
    | `auroc` | 1 | `auroc` of `mean_logp` against correctness |
    | `ece_likelihood`, `brier_likelihood` | 1 | of exp(`mean_logp`) against correctness, over responses |
    | `ece_majority`, `brier_majority` | 1 | of the majority share against the majority's accuracy, over prompts |

    The ECE of few prompts is biased upwards: an empty or thin bin cannot be right on average.
    """
    rows = []
    for (step, name), samples in evals.groupby(KEYS, sort=True):
        for measure, estimate in _measures(samples, bins, resamples).items():
            rows.append((step, name, measure, *estimate))
    return pd.DataFrame(rows, columns=[*KEYS, "measure", "value", "low", "high"])


def _sources(samples: pd.DataFrame) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Confidence and outcome of one step and set by source: responses, and prompts where answers are stored."""
    likelihood = (np.exp(mean_logp(samples)), samples["correct"].to_numpy(dtype=float))
    if not has_answers(samples):
        return {"likelihood": likelihood}
    votes = majority_by_prompt(samples)
    return {"likelihood": likelihood, "majority": (votes["share"].to_numpy(), votes["accuracy"].to_numpy())}


def _measures(samples: pd.DataFrame, bins: int, resamples: int) -> dict[str, tuple[float, float, float]]:
    """(value, low, high) by measure for the samples of one step and set."""
    score, correct = mean_logp(samples), samples["correct"].to_numpy(dtype=bool)
    sources = _sources(samples)

    def of_responses(rows: np.ndarray) -> np.ndarray:
        confidence, outcome = (values[rows] for values in sources["likelihood"])
        scores = [*logp_gap(score[rows], correct[rows]), auroc(score[rows], correct[rows])]
        return np.array([*scores, expected_calibration_error(confidence, outcome, bins), brier(confidence, outcome)])

    def of_prompts(rows: np.ndarray) -> np.ndarray:
        confidence, outcome = (values[rows] for values in sources["majority"])
        return np.array([expected_calibration_error(confidence, outcome, bins), brier(confidence, outcome)])

    names = ("logp_correct", "logp_incorrect", "logp_gap", "auroc", "ece_likelihood", "brier_likelihood")
    estimates = _with_interval(names, of_responses, samples["prompt"].to_numpy(), resamples)
    if "majority" in sources:
        prompts = np.arange(len(sources["majority"][0]))
        estimates |= _with_interval(("ece_majority", "brier_majority"), of_prompts, prompts, resamples)
    return estimates


def _with_interval(names, statistic, clusters, resamples) -> dict[str, tuple[float, float, float]]:
    values = statistic(np.arange(len(clusters)))
    low, high = bootstrap_clusters(statistic, clusters, resamples)
    estimates = zip(values.tolist(), low.tolist(), high.tolist(), strict=True)
    return dict(zip(names, estimates, strict=True))
