"""Thinning of curves before they are drawn."""

import numpy as np

MAX_POINTS = 2000


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
