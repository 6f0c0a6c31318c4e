"""How good is the what-if forecast? Real one-step updates under many settings against what the lab said before.

    python -m tests.benchmarks.forecast [RUN] [STEP ...]

Each step is taken from the run's own state before it (its last checkpoint, trained on from there), under each setting.
Forecast: measured ΔH of the step as trained + rate · (difference of the first-order pushes), the rate fitted to it.
Reported over all but the step as trained: correlation and slope of measured on forecast, of ΔH and of its difference to
the step as trained. The outcome may be poor; it is what it is.
"""

import sys

import numpy as np
import pandas as pd

import workbench as wb
from workbench.metrics.statistics import spearman
from workbench.training.branch import Branch, measured_change
from workbench.training.settings import Setting
from workbench.training.whatif import WhatIf
from workbench.widgets.views.whatif import compare

SETTINGS = (
    Setting(),
    Setting(clip_high=0.05),
    Setting(clip_low=0.05),
    Setting(clip_high=1.0),
    Setting(positive_weight=0.0),
    Setting(positive_weight=0.5),
    Setting(entropy_coefficient=0.02),
    Setting(entropy_coefficient=-0.02),
    Setting(selection="high_entropy_mask", selection_value=0.2),
    Setting(selection="clip_b", selection_value=1.0),
    Setting(baseline="dr_grpo"),
)


def trials(run, steps) -> pd.DataFrame:
    """One row per step and setting: forecast and measured ΔH (nats), and both as differences to the step as trained."""
    rows = []
    for step in steps:
        lab, branch = WhatIf(run, step), Branch(run, step)
        actual = measured_change(branch.take())
        for setting in SETTINGS[1:]:
            config = setting.config(run.config)
            table = compare(lab, lab.outcome(config), setting.describe())
            rows.append({"step": step, "setting": setting.describe(), "forecast": table["forecast ΔH"][1],
                         "measured": measured_change(branch.take(config)), "actual": actual})  # fmt: skip
            print(rows[-1], flush=True)
    return pd.DataFrame(rows)


def agreement(forecast, measured) -> str:
    slope = np.polyfit(forecast, measured, 1)[0]
    pearson = np.corrcoef(forecast, measured)[0, 1]
    return f"Pearson {pearson:.2f}, Spearman {spearman(forecast, measured):.2f}, slope {slope:.2f}"


def main(arguments: list[str]) -> None:
    run = wb.open_run(arguments[0]) if arguments else next(r for r in wb.list_runs() if r.id.startswith("demo-grpo"))
    steps = [int(step) for step in arguments[1:]] or [step for step in run.rollout_steps if step % 16 == 1]
    table = trials(run, steps)
    print(table.to_string(index=False, float_format="%.5f"))
    print(f"ΔH, {len(table)} real steps: {agreement(table['forecast'], table['measured'])}")
    differences = table["forecast"] - table["actual"], table["measured"] - table["actual"]
    print(f"difference to the step as trained: {agreement(*differences)}")
    signs = np.sign(differences[0]) == np.sign(differences[1])
    print(f"its sign is right in {signs.sum()} of {len(signs)}")


if __name__ == "__main__":
    main(sys.argv[1:])
