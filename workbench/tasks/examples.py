"""Examples of what the unskilled solver writes, to be looked at."""

from collections.abc import Iterable
from random import Random

import pandas as pd

from workbench.tasks.base import ProceduralTask, Solver


def example_traces(tasks: Iterable[ProceduralTask], solver: Solver, count: int = 3, seed: int = 0) -> pd.DataFrame:
    """`count` training prompts of each task with the solver's traces: columns task, prompt, trace, correct."""
    rng = Random(seed)
    rows = []
    for task in tasks:
        for prompt in task.train_prompts(count, seed):
            trace = task.trace(prompt, solver, rng)
            rows.append((task.name, prompt.text, trace, task.verify(prompt, trace).correct))
    return pd.DataFrame(rows, columns=["task", "prompt", "trace", "correct"])
