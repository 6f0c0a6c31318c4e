"""Following instructions: the four accuracies of IFEval (arXiv 2311.07911), with intervals.

Tables take evaluation samples as `Run.evals` gives them; those of a set with verifiable instructions have the columns
`instructions` (how many a prompt has), `followed` and `followed_loose` (how many of them the response follows, strictly
and loosely).
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from workbench.metrics.performance import KEYS
from workbench.metrics.statistics import bootstrap_clusters

COLUMNS = ["instructions", "followed", "followed_loose"]
MEASURES = ["prompt_strict", "prompt_loose", "instruction_strict", "instruction_loose"]


def instruction_table(evals: pd.DataFrame) -> pd.DataFrame:
    """Columns step, set, measure, value, low, high (95 %, bootstrap over prompts), for the sets with instructions.

    `prompt_…`: share of responses that follow all their instructions; `instruction_…`: share of all instructions that
    are followed, Σ followed / Σ instructions. `…_strict` reads the response as it is, `…_loose` takes the best of eight
    variants of it.
    """
    rows = []
    for (step, name), samples in evals.groupby(KEYS, sort=True):
        if not set(COLUMNS) <= set(samples) or samples[COLUMNS].isna().any(axis=None):
            continue
        counts = samples[COLUMNS].to_numpy(dtype=float)
        values = accuracies(counts)
        low, high = bootstrap_clusters(lambda at, c=counts: accuracies(c[at]), samples["prompt"].to_numpy())
        rows += [(step, name, *row) for row in zip(MEASURES, values.tolist(), low.tolist(), high.tolist(), strict=True)]
    return pd.DataFrame(rows, columns=[*KEYS, "measure", "value", "low", "high"])


def accuracies(counts: np.ndarray) -> np.ndarray:
    """The four `MEASURES` of responses with counts [n, 3] of `COLUMNS`."""
    asked, followed = counts[:, :1], counts[:, 1:]
    return np.concatenate([(followed == asked).mean(0), followed.sum(0) / asked.sum()])
