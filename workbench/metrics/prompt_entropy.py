"""Prompt entropy: how sure the policy is of the questions themselves, against training and against accuracy.

Tables take evaluation samples as `Run.evals` gives them, with the column `prompt_entropy` (nats; the same for all
samples of a prompt).
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from workbench.metrics.performance import KEYS, prompt_accuracy
from workbench.metrics.statistics import bootstrap_clusters, bootstrap_interval, spearman


def prompt_entropy_by_prompt(evals: pd.DataFrame) -> pd.DataFrame:
    """One row per step, set and prompt: columns step, set, prompt, prompt_entropy (nats), and ratio to step 0, before
    training, for the same set and prompt (NaN where that was not evaluated, or its entropy was 0)."""
    entropy = evals.groupby([*KEYS, "prompt"], sort=True)["prompt_entropy"].first().reset_index()
    start = entropy[entropy["step"] == 0].rename(columns={"prompt_entropy": "start"})[["set", "prompt", "start"]]
    joined = entropy.merge(start, on=["set", "prompt"], how="left")
    ratio = joined["prompt_entropy"] / joined["start"].where(joined["start"] > 0)
    return entropy.assign(ratio=ratio.to_numpy())


def prompt_entropy_table(evals: pd.DataFrame) -> pd.DataFrame:
    """Prompt entropy per step and set: columns step, set, value, low, high (nats, mean over prompts), ratio, ratio_low,
    ratio_high (95 % intervals, bootstrap over prompts).

    ratio = Σ over prompts of the entropy / Σ over the same prompts at step 0: the published ratio to the value before
    training (arXiv 2511.05993, Fig. 8 (S); of the means, not the mean of ratios (I)). Sets are the in-domain and the
    out-of-domain prompts. Prompts without a value at both steps leave the ratio; without step 0 it is NaN.
    """
    rows = []
    for (step, name), prompts in prompt_entropy_by_prompt(evals).groupby(KEYS, sort=True):
        entropy = prompts["prompt_entropy"].to_numpy(dtype=float)
        mean = (float(np.nanmean(entropy)) if np.isfinite(entropy).any() else np.nan, *bootstrap_interval(entropy))
        rows.append((step, name, *mean, *_ratio(entropy, prompts["ratio"].to_numpy(dtype=float))))
    return pd.DataFrame(rows, columns=[*KEYS, "value", "low", "high", "ratio", "ratio_low", "ratio_high"])


def _ratio(entropy: np.ndarray, ratio: np.ndarray) -> tuple[float, float, float]:
    """Ratio of the means, with its interval; NaN when no prompt has both values."""
    both = (ratio > 0) & (entropy > 0)
    if not both.any():
        return np.nan, np.nan, np.nan
    now, start = entropy[both], entropy[both] / ratio[both]

    def of(rows: np.ndarray) -> np.ndarray:
        return np.array([now[rows].sum() / start[rows].sum()])

    low, high = bootstrap_clusters(of, np.arange(len(now)), resamples=1000)
    return float(now.sum() / start.sum()), float(low[0]), float(high[0])


def prompt_entropy_and_accuracy(evals: pd.DataFrame) -> pd.DataFrame:
    """Spearman's ρ over prompts of prompt entropy and accuracy: columns step, set, prompts, spearman.

    arXiv 2511.05993, Figs. 9 and 10, quote its mean over benchmarks (S): the mean of `spearman` over sets.
    """
    joined = prompt_entropy_by_prompt(evals).merge(prompt_accuracy(evals), on=[*KEYS, "prompt"])
    rows = [
        (*key, len(prompts), spearman(prompts["prompt_entropy"], prompts["accuracy"]))
        for key, prompts in joined.groupby(KEYS, sort=True)
    ]
    return pd.DataFrame(rows, columns=[*KEYS, "prompts", "spearman"])
