"""The law R = −a·e^H + b between entropy and performance over a run (arXiv 2505.22617), and its ceiling b − a."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from workbench.metrics.statistics import LEVEL, RESAMPLES, percentiles


@dataclass(frozen=True)
class LawFit:
    """R = −a·e^H + b fitted to `steps` points: R is performance, H entropy in nats. Intervals are (low, high)."""

    a: float
    b: float
    ceiling: float
    """b − a: the performance predicted at H = 0"""
    r2: float
    """share of the variance of R that the fit explains, on the points fitted"""
    a_interval: tuple[float, float]
    b_interval: tuple[float, float]
    ceiling_interval: tuple[float, float]
    steps: int

    def predict(self, entropy) -> np.ndarray:
        """Performance at entropy [n], nats."""
        return self.b - self.a * np.exp(np.asarray(entropy, dtype=float))


def fit_law(
    entropy,
    performance,
    share: float = 1.0,
    block: int | None = None,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
) -> LawFit:
    """Least squares of performance [n] on e^entropy [n], over the first `share` of the steps.

    The source fits on early steps, about 15 %, and extrapolates (S). Pairs with a NaN are left out. Steps of one run
    are not independent, so intervals come from a moving-block bootstrap of (H, R) pairs with blocks of `block`
    consecutive steps, ⌈n^(1/3)⌉ unless given (K); deterministic. They hold for the noise of this run, not for another
    seed, and say nothing of whether the law holds beyond the entropies seen. Raises `ValueError` for fewer than three
    pairs, entropy that does not vary, or a share outside (0, 1].
    """
    if not 0 < share <= 1:
        raise ValueError(f"share is {share}; it must be in (0, 1]")
    x, y = np.exp(np.asarray(entropy, dtype=float)), np.asarray(performance, dtype=float)
    early = math.ceil(share * len(x))
    kept = ~(np.isnan(x) | np.isnan(y))
    x, y = x[:early][kept[:early]], y[:early][kept[:early]]
    if len(x) < 3 or np.ptp(x) == 0:
        raise ValueError(f"the law needs three steps of differing entropy, got {len(x)}")
    a, b = _line(x[None], y[None])
    drawn = _blocks(len(x), block or math.ceil(len(x) ** (1 / 3)), resamples)
    a_drawn, b_drawn = _line(x[drawn], y[drawn])
    residual = y - (b[0] - a[0] * x)
    spread = ((y - y.mean()) ** 2).sum()
    return LawFit(
        a=float(a[0]),
        b=float(b[0]),
        ceiling=float(b[0] - a[0]),
        r2=float(1 - (residual**2).sum() / spread) if spread > 0 else math.nan,
        a_interval=percentiles(a_drawn, level),
        b_interval=percentiles(b_drawn, level),
        ceiling_interval=percentiles(b_drawn - a_drawn, level),
        steps=len(x),
    )


def _line(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(a, b) of y = −a·x + b by least squares for each row of x, y [m, n]; NaN where x does not vary."""
    centre_x, centre_y = x.mean(1), y.mean(1)
    away = x - centre_x[:, None]
    spread = (away**2).sum(1)
    slope = np.divide((away * y).sum(1), spread, out=np.full(len(x), math.nan), where=spread > 0)
    return -slope, centre_y - slope * centre_x


def _blocks(count: int, length: int, resamples: int) -> np.ndarray:
    """Indices [resamples, count] of a moving-block bootstrap."""
    length = min(length, count)
    starts = np.random.default_rng(0).integers(0, count - length + 1, size=(resamples, math.ceil(count / length)))
    return (starts[:, :, None] + np.arange(length)).reshape(resamples, -1)[:, :count]
