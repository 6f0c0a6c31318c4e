"""Where a run passes from the rising stage, in which entropy moves fast, to the plateau (arXiv 2508.02260).

The source splits runs so (S) and gives no criterion; both rules here are inferred (I), their numbers are parameters.
"""

from __future__ import annotations

import numpy as np


def smoothed_slope(values, window: int = 10) -> np.ndarray:
    """Least-squares slope per step of values [n] in a window of `window` steps to either side, cut off at the ends.

    Returns float64 [n], unit of the values per step; NaN where fewer than two values are in the window.
    """
    values = np.asarray(values, dtype=float)
    out = np.full(len(values), np.nan)
    for step in range(len(values)):
        first = max(0, step - window)
        near = values[first : step + window + 1]
        at = np.flatnonzero(~np.isnan(near))
        if len(at) > 1:
            away = at - at.mean()
            out[step] = (away @ near[at]) / (away @ away)
    return out


def plateau_start(entropy, first: int = 20, fraction: float = 0.1, hold: int = 20, window: int = 10) -> int | None:
    """Index of the first step s ≥ `first` from which |dH/ds| < `fraction` × its largest value before `first` holds for
    `hold` steps; None if there is none: the run ends in the rising stage.

    entropy: [n] nats, one per step; dH/ds is `smoothed_slope`. A run in which entropy does not move early has no
    rising stage to leave: None. Entropy that oscillates about a level can pass for a plateau. Raises `ValueError`
    unless 1 ≤ first and 1 ≤ hold.
    """
    if first < 1 or hold < 1:
        raise ValueError(f"first ({first}) and hold ({hold}) must be at least 1")
    slope = np.abs(smoothed_slope(entropy, window))
    early = slope[:first]
    if len(slope) <= first or not np.nanmax(early, initial=0.0) > 0:
        return None
    slow = slope < fraction * np.nanmax(early)
    run = 0
    for step in range(first, len(slow)):
        run = run + 1 if slow[step] else 0
        if run == hold:
            return step - hold + 1
    return None


def two_segments(values, margin: int = 5) -> int:
    """Index of the breakpoint of the continuous two-segment line that fits values [n] best (least squares).

    Every step with at least `margin` steps to either side is tried. Unlike `plateau_start` it always gives one, also
    for a run with a single stage. NaN values are left out. Raises `ValueError` if the series is shorter than
    2 · margin + 1.
    """
    values = np.asarray(values, dtype=float)
    if len(values) < 2 * margin + 1:
        raise ValueError(f"two segments need {2 * margin + 1} steps, got {len(values)}")
    at = np.flatnonzero(~np.isnan(values))

    def error(knee: int) -> float:
        design = np.stack([np.ones(len(at)), at, np.maximum(at - knee, 0)], axis=1)
        weights = np.linalg.lstsq(design, values[at], rcond=None)[0]
        return float(((values[at] - design @ weights) ** 2).sum())

    return min(range(margin, len(values) - margin), key=error)


def stage_of_steps(entropy, **criterion) -> list[str]:
    """'rising' or 'plateau' for each step of a run, by `plateau_start`."""
    start = plateau_start(entropy, **criterion)
    return ["rising" if start is None or step < start else "plateau" for step in range(len(entropy))]
