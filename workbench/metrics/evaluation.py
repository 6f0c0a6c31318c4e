"""Everything an evaluation says, in one table."""

from __future__ import annotations

import pandas as pd

from workbench.metrics.calibration import calibration_table
from workbench.metrics.diversity import diversity_table
from workbench.metrics.performance import KEYS, performance_table
from workbench.metrics.prompt_entropy import prompt_entropy_table

_COLUMNS = [*KEYS, "measure", "k", "value", "low", "high"]


def evaluation_table(evals: pd.DataFrame) -> pd.DataFrame:
    """Performance, diversity, calibration and prompt entropy of every step and set: columns step, set, measure, k
    (samples, for avg, pass and maj; else missing), value, low, high (95 %, bootstrap over prompts).

    evals: one row per sample, as `Run.evals` gives them. Definitions: `performance_by_prompt`, `diversity_by_prompt`,
    `calibration_table`, `prompt_entropy_table` (`prompt_entropy` in nats and `prompt_entropy_ratio` to the first
    evaluated step). Measures whose columns are not stored are left out.
    """
    parts = [performance_table(evals)]
    if "text" in evals:
        parts.append(diversity_table(evals))
    if {"logp", "length"} <= set(evals):
        parts.append(calibration_table(evals))
    if "prompt_entropy" in evals:
        entropy = prompt_entropy_table(evals)
        parts.append(entropy[[*KEYS, "value", "low", "high"]].assign(measure="prompt_entropy"))
        ratio = entropy[[*KEYS, "ratio", "ratio_low", "ratio_high"]].set_axis([*KEYS, "value", "low", "high"], axis=1)
        parts.append(ratio.assign(measure="prompt_entropy_ratio"))
    table = pd.concat([part.reindex(columns=_COLUMNS) for part in parts], ignore_index=True)
    table["k"] = table["k"].astype("Int64")
    return table.sort_values(KEYS, kind="stable", ignore_index=True)
