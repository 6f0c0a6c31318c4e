"""The course of a whole run: where entropy ended, where the plateau began, and the law between entropy and reward."""

from __future__ import annotations

import numpy as np
import pandas as pd

from workbench.metrics.law import fit_law
from workbench.metrics.registry import Metric
from workbench.metrics.series import ema
from workbench.metrics.stages import plateau_start, two_segments

SHORTEST = 11
"""Steps below which two segments are not told apart."""

COURSE_METRICS = [
    Metric("entropy_first", "nats", "entropy/mean of the first step", "the run", "one batch: it has its noise"),
    Metric("entropy_final", "nats", "E at the last step: entropy/ema", "the run", "of a run that is still falling"),
    Metric("plateau_step", "step", "first step from which |dH/ds| is under a tenth of its early maximum for 20 steps",
           "the run", "left out if there is none; a slow oscillation can pass for a plateau"),
    Metric("knee_step", "step", "breakpoint of the best continuous two-segment line through entropy/mean", "the run",
           "it always finds one, also where there is a single stage"),
    Metric("law_a", "1", "a of R = −a·e^H + b, least squares over the steps, R = reward/correct (arXiv 2505.22617)",
           "the run", "the interval is of this run's noise; steps of a curriculum follow the prompts"),
    Metric("law_b", "1", "b of the same", "the run", "as law_a"),
    Metric("law_ceiling", "fraction", "b − a: R predicted at H = 0", "the run",
           "as a bound: it extrapolates beyond the entropies seen, and may pass 1"),
    Metric("law_r2", "1", "share of the variance of R that the law explains", "the run",
           "both follow time: any two steady trends fit"),
]  # fmt: skip
"""Every `measure` of `course_table`."""


def course_table(metrics: pd.DataFrame) -> pd.DataFrame:
    """What `COURSE_METRICS` names, of a run's `metrics` (one row per step): columns measure, value, low, high.

    Intervals (95 %) are those of `fit_law`, NaN for the rest. What cannot be told (too few steps, no plateau, entropy
    that does not move) is left out.
    """
    if metrics.empty or "entropy/mean" not in metrics:
        return pd.DataFrame(columns=["measure", "value", "low", "high"])
    step, entropy = metrics["step"].to_numpy(), metrics["entropy/mean"].to_numpy(dtype=float)
    rows = [("entropy_first", entropy[0]), ("entropy_final", ema(entropy)[-1])]
    if len(metrics) >= SHORTEST:
        start = plateau_start(entropy)
        rows += [("plateau_step", step[start])] if start is not None else []
        rows += [("knee_step", step[two_segments(entropy)])]
    return pd.DataFrame(
        [(*row, np.nan, np.nan) for row in rows] + _law(metrics), columns=["measure", "value", "low", "high"]
    )


def _law(metrics: pd.DataFrame) -> list[tuple[str, float, float, float]]:
    pairs = metrics.reindex(columns=["entropy/mean", "reward/correct"]).dropna()
    if len(pairs) < SHORTEST or pairs["entropy/mean"].nunique() < 2:
        return []
    fit = fit_law(pairs["entropy/mean"], pairs["reward/correct"])
    return [
        ("law_a", fit.a, *fit.a_interval),
        ("law_b", fit.b, *fit.b_interval),
        ("law_ceiling", fit.ceiling, *fit.ceiling_interval),
        ("law_r2", fit.r2, np.nan, np.nan),
    ]
