"""Two runs: where their bands part, what differs in their configs, and the same prompts side by side."""

import ipywidgets
import numpy as np

from workbench.metrics.separation import separation
from workbench.plots import parting
from workbench.store import curve_table
from workbench.widgets.pairs import PairedRuns, by_sharing
from workbench.widgets.run_data import config_diff
from workbench.widgets.views.base import View


class DiffView(View):
    """The first step at which two groups of runs stay apart, and both runs' responses to the same prompts there."""

    title = "Run diff"
    explains = "Colour “between runs” compares entropy after the very same text."

    def __init__(self, explorer):
        super().__init__(explorer)
        ids = list(explorer.runs)
        self.first = self.dropdown("A", ids)
        self.second = self.dropdown("B", ids, _twin(explorer.table) or ids[-1])
        self.controls.children = (ipywidgets.HBox([self.first, self.second]), self.note)
        self._pair: PairedRuns | None = None

    def draw(self) -> None:
        first, second = (self.explorer.runs[box.value] for box in (self.first, self.second))
        if first.id == second.id:
            raise ValueError("Choose two different runs A and B.")
        metric, labels = self.explorer.metric.value, self.explorer.labels()
        members = [self._members(run, labels) for run in (first, second)]
        if set(members[0]) & set(members[1]):
            members = [[first], [second]]
        curves, steps = self._curves(members, metric)
        found = separation(*curves, hold=5)
        names = tuple(labels[m[0].id] if len(m) > 1 else m[0].id for m in members)
        self.explorer.detail.show(
            parting(found, steps, names, metric),
            config_diff(self.explorer.table, [first.id, second.id]),
            clicked=lambda trace, place: self.explorer.go_to(int(trace.x[place])),
        )
        self._show_text(first, second, None if found.at is None else int(steps[found.at]))

    def leave(self) -> None:
        self.explorer.show_run_tokens()

    def _members(self, run, labels):
        """The runs on show that share the group of `run`, itself at least."""
        group = [other for other in self.explorer.chosen() if labels[other.id] == labels[run.id]]
        return group if run.id in [other.id for other in group] else [run]

    def _curves(self, members, metric):
        tables = [[curve_table(run, [metric]).set_index("step")[metric] for run in runs] for runs in members]
        steps = sorted(set.intersection(*(set(table.index) for side in tables for table in side)))
        curves = [np.array([table.reindex(steps).to_numpy(float) for table in side]) for side in tables]
        if not steps or any(np.isnan(side).all() for side in curves):
            raise ValueError(f"Not recorded: {metric} at common steps of both runs.")
        return curves, steps

    def _show_text(self, first, second, step) -> None:
        if self._pair is None or self._pair.runs != (first, second):
            self._pair = PairedRuns(first, second)
        pair = self._pair
        if not pair.rollout_steps:
            self.say("These two runs never kept responses to the same prompts at the same step; runs of one seed and "
                     "task do. The table beside the figure holds their config diff.")  # fmt: skip
            return
        tables = self.explorer.show_pair(pair, step)
        common = tables.sequences["group"].nunique()
        self.say(f"Step {tables.step}, {common} prompts in common. {by_sharing(tables.tokens)} {self.explains}")


def _twin(table) -> str | None:
    """The first run that has the first one's seed and other methods: it answers the same prompts."""
    first = table.iloc[0]
    twins = table[(table["seed"] == first["seed"]) & (table["methods"] != first["methods"])]
    return None if twins.empty else twins["id"].iloc[0]


class ConfigView(View):
    """The fields in which the runs on show differ."""

    title = "Config"
    explains = "Fields in which the runs on show differ."
    figure = False
    tokens = False

    def __init__(self, explorer):
        super().__init__(explorer)
        from workbench.widgets.data_table import DataTable

        self.fields = DataTable()
        self.controls.children = (self.note, self.fields)

    def draw(self) -> None:
        runs = [run.id for run in self.explorer.chosen()][:20]
        diff = config_diff(self.explorer.table, runs)
        self.fields.show(diff)
        self.say(f"{self.explains} {len(diff)} differ between {len(runs)} runs.")
