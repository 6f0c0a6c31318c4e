"""One number per evaluated step from a run's evaluation samples, by the name of the measure."""

from __future__ import annotations

import numpy as np
import pandas as pd

from workbench.metrics.calibration import auroc, logp_gap, mean_logp
from workbench.metrics.diversity import diversity_by_prompt
from workbench.metrics.performance import performance_by_prompt
from workbench.metrics.prompt_entropy import prompt_entropy_and_accuracy, prompt_entropy_by_prompt

_CALIBRATION = ("logp_correct", "logp_incorrect", "logp_gap", "auroc")
_DIVERSITY = ("ngram_diversity", "self_bleu", "distinct_answers", "semantic_entropy", "distinct_correct")


def scores(evals: pd.DataFrame, measure: str) -> pd.Series:
    """`measure` of every evaluated step of one set, by step; a leading minus turns its sign.

    entropy (nats per token), avg, pass@k, maj@k, the measures of diversity and calibration, prompt_entropy,
    prompt_entropy_ratio and prompt_entropy_rho (with accuracy, over prompts). Raises `KeyError` for a measure that is
    unknown or was not recorded.
    """
    sign, name = (-1.0, measure[1:]) if measure.startswith("-") else (1.0, measure)
    return sign * _of(evals, name)


def _of(evals: pd.DataFrame, name: str) -> pd.Series:
    family, _, k = name.partition("@")
    if name == "entropy":
        tokens = evals.assign(total=evals["entropy"] * evals["length"]).groupby("step")[["total", "length"]].sum()
        return tokens["total"] / tokens["length"]
    if family in ("avg", "pass", "maj"):
        answered = evals if family == "maj" else evals.drop(columns="answer", errors="ignore")  # maj takes most time
        table = performance_by_prompt(answered, [int(k)] if k else None)
        return _mean(table, family)
    if name in _DIVERSITY:
        return _mean(diversity_by_prompt(evals), name)
    if name in _CALIBRATION:
        return evals.groupby("step").apply(_calibration, include_groups=False)[name]
    if name == "prompt_entropy":
        return prompt_entropy_by_prompt(evals).groupby("step")["prompt_entropy"].mean()
    if name == "prompt_entropy_ratio":
        mean = prompt_entropy_by_prompt(evals).groupby("step")["prompt_entropy"].mean()
        return mean / mean.iloc[0]
    if name == "prompt_entropy_rho":
        return prompt_entropy_and_accuracy(evals).set_index("step")["spearman"]
    raise KeyError(name)


def _mean(by_prompt: pd.DataFrame, measure: str) -> pd.Series:
    found = by_prompt[by_prompt["measure"] == measure]
    if found.empty:
        raise KeyError(measure)
    return found.groupby("step")["value"].mean()


def _calibration(samples: pd.DataFrame) -> pd.Series:
    score, correct = mean_logp(samples), samples["correct"].to_numpy(dtype=bool)
    return pd.Series(
        dict(zip(_CALIBRATION, (*logp_gap(score, correct), auroc(score, correct)), strict=True)), dtype=float
    )


def finite(values: pd.Series) -> np.ndarray:
    """Values by step as an array, float64."""
    return values.sort_index().to_numpy(dtype=float)
