"""Smoothing and thinning of curves before they are drawn."""

import numpy as np

MAX_POINTS = 2000
EMA_PHI = 0.6


def ema(values, phi: float = EMA_PHI) -> np.ndarray:
    """E_k = (1 - phi)·H_k + phi·E_{k-1}, E_1 = H_1: the smoothing of arXiv:2511.05993; NaN entries carry E forward.

    `values`: float [n]; returns float64 [n].
    """
    values = np.asarray(values, dtype=float)
    smooth = np.empty_like(values)
    state = np.nan
    for index, value in enumerate(values):
        if not np.isnan(value):
            state = value if np.isnan(state) else (1 - phi) * value + phi * state
        smooth[index] = state
    return smooth


def thin(values, limit: int = MAX_POINTS) -> np.ndarray:
    """Sorted indices (int [m], m <= limit) of the points to draw: first, last, and each bucket's minimum and maximum.

    Extremes survive, so a spike of one step in a long run stays visible. NaN counts as absent inside a bucket.
    """
    values = np.asarray(values, dtype=float)
    count = len(values)
    if count <= limit:
        return np.arange(count)
    buckets = np.array_split(np.arange(1, count - 1), (limit - 2) // 2)
    kept = {0, count - 1}
    for bucket in buckets:
        finite = bucket[~np.isnan(values[bucket])]
        if len(finite):
            kept |= {int(finite[values[finite].argmin()]), int(finite[values[finite].argmax()])}
    return np.array(sorted(kept))
