"""Where two groups of runs part: the first step from which their bands no longer overlap."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from workbench.metrics.series import ema

HOLD = 5
"""Steps in a row for which the bands must stay apart."""


@dataclass(frozen=True)
class Separation:
    """`at`: place of the first step apart, None if they never part. `bands`: ((low, high) of the first group, of the
    second), [n] each. `basis`: what a band is."""

    at: int | None
    bands: tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
    basis: str


def separation(first, second, hold: int = HOLD) -> Separation:
    """Compare curves [runs, n] of two groups, NaN where missing, over the steps both have.

    With two runs or more on both sides a band is the range of the smoothed runs. A single run has no range: its band is
    its smoothed curve ± 2 standard deviations of what smoothing took away, the noise within the run, which says nothing
    of another seed.
    """
    first, second = (np.atleast_2d(np.asarray(curves, dtype=float)) for curves in (first, second))
    steps = min(first.shape[1], second.shape[1])
    first, second = first[:, :steps], second[:, :steps]
    several = min(len(first), len(second)) > 1
    bands = tuple(_range(curves) if several else _noise(curves) for curves in (first, second))
    apart = (bands[0][0] > bands[1][1]) | (bands[1][0] > bands[0][1])
    held = np.flatnonzero(np.convolve(apart, np.ones(hold), "valid") == hold) if steps >= hold else []
    basis = "range over seeds" if several else "noise within single runs, not seeds"
    return Separation(int(held[0]) if len(held) else None, bands, basis)


def _range(curves: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    smooth = np.array([ema(curve) for curve in curves])
    return np.nanmin(smooth, axis=0), np.nanmax(smooth, axis=0)


def _noise(curves: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    mean = np.nanmean(curves, axis=0)
    smooth = ema(mean)
    spread = 2 * float(np.nanstd(mean - smooth))
    return smooth - spread, smooth + spread
