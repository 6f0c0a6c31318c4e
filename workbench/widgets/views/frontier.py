"""Entropy against reward over all runs on show."""

import pandas as pd

from workbench.metrics import fit_law
from workbench.plots import frontier
from workbench.store import curve_table
from workbench.widgets.views.base import View


class FrontierView(View):
    """Runs as paths in (entropy, reward); a click goes to that run and step."""

    title = "Frontier"
    explains = "Does a method move along the curve R = −a·e^H + b, or leave it? Click a point to read its rollouts."
    tokens = False

    def draw(self) -> None:
        paths = self.paths()
        fits, table = {}, []
        for group, rows in paths.groupby("group", sort=False):
            fits[group] = fit = fit_law(rows["entropy"], rows["reward"])
            low, high = fit.ceiling_interval
            numbers = {"a": fit.a, "b": fit.b, "ceiling b − a": fit.ceiling, "ceiling, low": low, "ceiling, high": high}
            table.append({"group": group, "runs": rows["run"].nunique(), **numbers, "R²": fit.r2, "steps": fit.steps})
        self.say(f"{self.explains} The fit pools a group's runs; its 95 % interval holds for the noise of these runs.")
        self.explorer.detail.show(frontier(paths, fits), pd.DataFrame(table), clicked=self._clicked)

    def paths(self) -> pd.DataFrame:
        """run, group, step, entropy, reward of the runs on show."""
        labels, parts = self.explorer.labels(), []
        for run in self.explorer.chosen():
            table = curve_table(run, ["entropy/mean", "reward/mean"])
            table = table.rename(columns={"entropy/mean": "entropy", "reward/mean": "reward"})
            parts.append(table.assign(run=run.id, group=labels[run.id]))
        paths = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=["entropy", "reward"])
        if paths[["entropy", "reward"]].dropna().empty:
            raise ValueError("Not recorded: entropy/mean and reward/mean in the same run.")
        return paths

    def _clicked(self, trace, place: int) -> None:
        if trace.meta and trace.customdata is not None:
            self.explorer.select(trace.meta, int(trace.customdata[place]))
