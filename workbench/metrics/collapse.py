"""An early warning of entropy collapse, and how often it was right.

Collapse: smoothed entropy stays below `fraction` of its level at the start. The warning extrapolates the fall of log
entropy: it is raised at the first step whose recent rate of decay, well above its noise, would bring the run below the
bound within `horizon` steps (I: the definition and the rule are the workbench's own).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from workbench.metrics.series import ema

FRACTION, HORIZON, WINDOW, START, HOLD, SIGMAS = 0.25, 15, 20, 3, 3, 4.0


@dataclass(frozen=True)
class CollapseWarning:
    """What the detector says of one run. Steps are places in the series, from 0; None: it did not happen."""

    warned: int | None
    collapsed: int | None
    bound: float
    """entropy below which the run counts as collapsed, nats"""

    @property
    def lead(self) -> int | None:
        """Steps between warning and collapse; None unless both happened, in this order."""
        if self.warned is None or self.collapsed is None or self.warned > self.collapsed:
            return None
        return self.collapsed - self.warned


def collapse_warning(
    entropy, fraction: float = FRACTION, horizon: int = HORIZON, window: int = WINDOW
) -> CollapseWarning:
    """The warning for entropy [n] (nats, one per step), reading each step's past alone.

    The level at the start is the mean of the first `START` steps; collapse needs `HOLD` steps in a row below
    `fraction` of it, and dates from the first. Raises ValueError unless 0 < fraction < 1.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"fraction is {fraction}; it must lie between 0 and 1")
    values = np.asarray(entropy, dtype=float)
    if np.isfinite(values[:START]).sum() == 0:
        return CollapseWarning(None, None, math.nan)
    bound = fraction * float(np.nanmean(values[:START]))
    smooth = ema(values)
    below = smooth < bound
    runs = np.flatnonzero(np.convolve(below, np.ones(HOLD), "valid") == HOLD) if len(values) >= HOLD else []
    collapsed = int(runs[0]) if len(runs) else None
    ends = range(window, len(values) + 1)
    warned = next((end - 1 for end in ends if _heading_below(values[end - window : end], bound, horizon)), None)
    return CollapseWarning(warned, collapsed, bound)


def _heading_below(recent: np.ndarray, bound: float, horizon: int) -> bool:
    """Whether log entropy [window] falls, by `SIGMAS` standard errors, towards `bound` within `horizon` steps."""
    at = np.flatnonzero(np.isfinite(recent) & (recent > 0))
    if len(at) < 4 or bound <= 0:
        return False
    x, y = at - at.mean(), np.log(recent[at])
    slope = (x @ y) / (x @ x)
    residual = y - y.mean() - slope * x
    error = math.sqrt((residual @ residual) / (len(at) - 2) / (x @ x))
    now = y.mean() + slope * (len(recent) - 1 - at.mean())
    return slope < -SIGMAS * error and slope < 0 and now + slope * horizon < math.log(bound)


def warning_record(curves: dict[str, np.ndarray], **rule) -> pd.DataFrame:
    """One row per run of `curves` (name -> entropy [n]): warned, collapsed, lead (steps; NaN: never), verdict.

    Verdicts: "in time", "late" (warned at or after the collapse), "missed", "false alarm" (warned, no collapse in the
    run), "rightly silent". A false alarm of a run that ends within the horizon of its warning is "open": nobody knows.
    """
    horizon = rule.get("horizon", HORIZON)
    rows = []
    for name, entropy in curves.items():
        found = collapse_warning(entropy, **rule)
        rows.append({"run": name, "steps": len(entropy), "warned": found.warned, "collapsed": found.collapsed,
                     "lead": found.lead, "verdict": _verdict(found, len(entropy), horizon)})  # fmt: skip
    return pd.DataFrame(rows)


def _verdict(found: CollapseWarning, steps: int, horizon: int) -> str:
    if found.warned is None:
        return "rightly silent" if found.collapsed is None else "missed"
    if found.collapsed is None:
        return "open" if found.warned + horizon >= steps else "false alarm"
    return "in time" if found.warned < found.collapsed else "late"
