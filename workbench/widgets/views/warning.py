"""Collapse: when it was in sight, and what spent the entropy."""

import ipywidgets
import numpy as np
import pandas as pd

from workbench.metrics.collapse import WINDOW, collapse_warning, warning_record
from workbench.metrics.ledger import missing_for_ledger, spent
from workbench.plots import warned
from workbench.store import curve_table
from workbench.widgets.data_table import DataTable
from workbench.widgets.token_data import load
from workbench.widgets.views.base import View

STEPS = 12
"""Kept steps before the warning that are searched for what spent the entropy."""


class WarningView(View):
    """The detector on the run chosen; its record on all runs on show."""

    title = "Collapse"
    explains = "The warning reads the past alone: log entropy falls steadily and would cross the bound within 15 steps."
    tokens = False

    def __init__(self, explorer):
        super().__init__(explorer)
        self.by = self.dropdown("spent by", ("token string", "prompt"))
        self.spenders = DataTable()
        self.controls.children = (self.note, ipywidgets.HBox([self.by]), self.spenders)

    def draw(self) -> None:
        run = self.explorer.run
        table = curve_table(run, ["entropy/mean"]).dropna()
        if table.empty:
            raise ValueError("Not recorded: entropy/mean.")
        found = collapse_warning(table["entropy/mean"])
        curves = {r.id: curve_table(r, ["entropy/mean"])["entropy/mean"].to_numpy() for r in self.explorer.chosen()}
        record = warning_record({name: values for name, values in curves.items() if np.isfinite(values).any()})
        counts = ", ".join(f"{n} {_several(verdict, n)}" for verdict, n in record["verdict"].value_counts().items())
        lead = record["lead"].median()
        leads = "" if pd.isna(lead) else f", median lead {lead:.0f} steps"
        self.say(f"{self.explains} On the {len(record)} runs on show: {counts}{leads}.")
        self.explorer.detail.show(
            warned(table["entropy/mean"], table["step"], found, run.id), record, clicked=self._clicked
        )
        until = int(table["step"].iloc[found.warned if found.warned is not None else -1])
        self._show_spenders(run, until, found.warned is not None)

    def _show_spenders(self, run, until: int, warned_at: bool) -> None:
        steps = [step for step in run.rollout_steps if until - WINDOW < step <= until][-STEPS:]
        what = f"before the warning at step {until}" if warned_at else f"up to the last step, {until}"
        parts = []
        for step in steps:
            tables = load(run, step)
            if not missing_for_ledger(tables.tokens):
                parts.append(spent(tables.sequences, tables.tokens, self.by.value))
        if not parts:
            self.spenders.show(
                pd.DataFrame(), f"What spent the entropy {what}: not recorded (entropy_after of kept steps)."
            )
            return
        table = pd.concat(parts).groupby("part", sort=False)[["tokens", "measured"]].sum().sort_values("measured")
        table = table.rename(columns={"measured": "ΔH, nats"}).head(12).rename_axis(self.by.value).reset_index()
        self.spenders.show(table, f"What spent the entropy in the {len(parts)} kept steps {what}; the largest falls.")

    def _clicked(self, trace, place: int) -> None:
        self.explorer.select(self.explorer.run.id, int(trace.x[place]))


def _several(verdict: str, count: int) -> str:
    return verdict + "s" if verdict == "false alarm" and count > 1 else verdict
