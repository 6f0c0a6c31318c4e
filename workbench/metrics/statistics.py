"""Statistics shared by the metrics: rank correlation, bootstrap intervals over prompts and over seeds."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

RESAMPLES = 1000
LEVEL = 0.95


def spearman(x, y) -> float:
    """Spearman's ρ: Pearson correlation of the ranks, ties sharing their average rank (K).

    x, y: float [n]; pairs with a NaN are left out. NaN for fewer than two pairs or a constant side.
    """
    pairs = pd.DataFrame({"x": np.asarray(x, dtype=float), "y": np.asarray(y, dtype=float)}).dropna()
    ranks = pairs.rank(method="average").to_numpy()
    centred = ranks - ranks.mean(0) if len(ranks) else ranks
    spread = np.sqrt((centred**2).sum(0).prod())
    return float((centred[:, 0] * centred[:, 1]).sum() / spread) if spread > 0 else float("nan")


def bootstrap_interval(values, resamples: int = RESAMPLES, level: float = LEVEL) -> tuple[float, float]:
    """Percentile interval of the mean of values [n], resampling its entries; deterministic.

    NaN entries (nothing measured for that prompt) are left out; (NaN, NaN) when none is left.
    """
    values = np.asarray(values, dtype=float)
    values = values[~np.isnan(values)]
    if len(values) == 0:
        return float("nan"), float("nan")
    draws = np.random.default_rng(0).integers(0, len(values), size=(resamples, len(values)))
    return percentiles(values[draws].mean(1), level)


def bootstrap_clusters(
    statistic: Callable[[np.ndarray], np.ndarray], clusters: np.ndarray, resamples: int = 200, level: float = LEVEL
) -> tuple[np.ndarray, np.ndarray]:
    """Percentile intervals of m statistics of rows that belong together in clusters (samples of one prompt).

    statistic: row indices -> float [m]; clusters: [n], the cluster of each row. Whole clusters are drawn with
    replacement (K). Returns (low [m], high [m]); resamples in which a statistic is NaN count for none of its bounds.
    """
    _, cluster, sizes = np.unique(clusters, return_inverse=True, return_counts=True)
    members = np.split(np.argsort(cluster, kind="stable"), np.cumsum(sizes)[:-1])
    rng = np.random.default_rng(0)
    drawn = [
        statistic(np.concatenate([members[i] for i in rng.integers(0, len(members), len(members))]))
        for _ in range(resamples)
    ]
    low, high = zip(*(percentiles(values, level) for values in np.array(drawn, dtype=float).T), strict=True)
    return np.array(low), np.array(high)


def bootstrap_over_seeds(
    values, resamples: int = RESAMPLES, level: float = LEVEL, prompts: bool = True
) -> tuple[float, float]:
    """Percentile interval of the mean of values [seeds, prompts], resampling the seeds and, if `prompts`, also the
    prompts, which all seeds share (crossed, so both are drawn once per resample (K)).

    With `prompts` it says how far another set of prompts and other seeds would agree; without, how far other seeds
    on the same prompts would. Deterministic. One seed says nothing about seeds: raises `ValueError` for fewer than two.
    """
    values = np.asarray(values, dtype=float)
    if values.ndim != 2 or len(values) < 2:
        raise ValueError(f"an interval over seeds needs values [seeds ≥ 2, prompts], got shape {values.shape}")
    rng, (seeds, count) = np.random.default_rng(0), values.shape
    of_seed = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=resamples) / seeds
    of_prompt = np.full((resamples, count), 1 / count)
    if prompts:
        of_prompt = rng.multinomial(count, np.full(count, 1 / count), size=resamples) / count
    return percentiles(((of_seed @ values) * of_prompt).sum(1), level)


def percentiles(values: np.ndarray, level: float) -> tuple[float, float]:
    """The central `level` of values [n], NaN left out; (NaN, NaN) when nothing is left."""
    values = values[~np.isnan(values)]
    if len(values) == 0:
        return float("nan"), float("nan")
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
