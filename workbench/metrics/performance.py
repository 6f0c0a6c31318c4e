"""Performance from repeated samples: pass@k and its interval."""

from __future__ import annotations

import numpy as np
import pandas as pd


def pass_at_k(correct: np.ndarray, k: int) -> np.ndarray:
    """Unbiased pass@k per prompt, 1 − C(n − c, k) / C(n, k) with c of n samples correct (arXiv 2107.03374, eq. 1).

    correct: bool [prompts, n]. Returns float64 [prompts]. Raises `ValueError` unless 1 ≤ k ≤ n.
    """
    n = correct.shape[1]
    if not 1 <= k <= n:
        raise ValueError(f"pass@k needs 1 ≤ k ≤ {n} samples per prompt, got k = {k}")
    wrong = n - correct.sum(1)
    drawn = np.arange(k)
    # Π (n − c − i)/(n − i): the chance that k draws without replacement are all wrong; a factor 0 ends it exactly.
    return 1.0 - np.prod(np.clip(wrong[:, None] - drawn, 0, None) / (n - drawn), axis=1)


def bootstrap_interval(values: np.ndarray, resamples: int = 1000, level: float = 0.95) -> tuple[float, float]:
    """Percentile interval of the mean of values [n], resampling its entries; deterministic."""
    draws = np.random.default_rng(0).integers(0, len(values), size=(resamples, len(values)))
    tail = (1 - level) / 2
    low, high = np.quantile(values[draws].mean(1), [tail, 1 - tail])
    return float(low), float(high)


def pass_at_k_table(evals: pd.DataFrame, ks: list[int] | None = None) -> pd.DataFrame:
    """pass@k of every evaluated step and set: columns step, set, k, value, low, high (95 %, bootstrap over prompts).

    evals: one row per sample with `step, set, prompt, sample, correct`. ks defaults to the powers of two up to the
    number of samples.
    """
    rows = []
    for (step, name), samples in evals.groupby(["step", "set"], sort=True):
        correct = samples.pivot(index="prompt", columns="sample", values="correct").to_numpy(dtype=bool)
        for k in ks or [2**i for i in range(correct.shape[1].bit_length()) if 2**i <= correct.shape[1]]:
            values = pass_at_k(correct, k)
            rows.append((step, name, k, float(values.mean()), *bootstrap_interval(values)))
    return pd.DataFrame(rows, columns=["step", "set", "k", "value", "low", "high"])
