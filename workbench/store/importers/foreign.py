"""What the readers of foreign logs have in common: their result, and how other tools' metrics are called here."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

OURS = {
    # TRL (GRPOTrainer's log), as of 1.x
    "entropy": "entropy/mean",
    "reward": "reward/mean",
    "completions/mean_length": "length/mean",
    "clip_ratio/low_mean": "clip/low_fraction",
    "clip_ratio/high_mean": "clip/high_fraction",
    "frac_reward_zero_std": "group/zero_variance_fraction",
    "step_time": "time/step",
    # verl; its actor/pg_clipfrac joins both sides and actor/pg_clipfrac_lower is the dual clip, so neither is ours
    "actor/entropy": "entropy/mean",
    "actor/entropy_loss": "entropy/mean",
    "critic/rewards/mean": "reward/mean",
    "response_length/mean": "length/mean",
    "timing_s/step": "time/step",
}
"""Foreign name -> ours, only where both mean the same: exact full-vocabulary entropy at the sampling temperature, the
mean over responses, shares of tokens clipped on one side."""
STEP_NAMES = ("step", "global_step", "train/global_step", "training/global_step", "_step")
FOREIGN = "foreign/"
"""Prefix of metrics that have no counterpart here."""


@dataclass
class ForeignRun:
    """A run as another tool logged it."""

    tool: str
    settings: dict[str, Any] = field(default_factory=dict)
    metrics: list[dict[str, float]] = field(default_factory=list)
    """One row per logged step: `step` and metrics under our names, or theirs with the prefix `foreign/`."""
    sequences: dict[int, pd.DataFrame] = field(default_factory=dict)
    """Responses by step, with the columns of `workbench.tables` that were recorded."""
    notes: list[str] = field(default_factory=list)


def translated(step: int, values: Mapping[str, Any]) -> dict[str, float]:
    """One row of metrics: numbers only, booleans and text left out, what is not finite as NaN."""
    row: dict[str, float] = {"step": step}
    for name, value in values.items():
        if name in STEP_NAMES or isinstance(value, bool) or not isinstance(value, int | float):
            continue
        plain = name.removeprefix("train/")
        row[OURS.get(plain, FOREIGN + plain)] = float(value) if math.isfinite(value) else math.nan
    return row


def merged(rows: Iterable[dict[str, float]]) -> list[dict[str, float]]:
    """Rows of the same step as one, later values winning, in order of steps."""
    by_step: dict[int, dict[str, float]] = {}
    for row in rows:
        by_step.setdefault(int(row["step"]), {}).update(row)
    return [by_step[step] for step in sorted(by_step)]


def groups(prompts: pd.Series) -> pd.DataFrame:
    """`prompt`, `group` and `sample` from the prompts' texts: equal prompts of one step are one group."""
    group = prompts.groupby(prompts, sort=False).ngroup()
    return pd.DataFrame({"prompt": group, "group": group, "sample": prompts.groupby(prompts, sort=False).cumcount()})


def storable(text: str) -> str:
    """Text as UTF-8 can hold it: half a surrogate pair, which JSON may spell, becomes the replacement character."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
