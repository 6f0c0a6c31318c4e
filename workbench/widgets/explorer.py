"""The explorer: from many runs to one curve, one step, one token. It reads stored runs and changes none of them."""

from __future__ import annotations

import ipywidgets
import numpy as np
from IPython.display import display

from workbench.plots import overlay, published_curve, published_curves
from workbench.store import Run
from workbench.widgets import run_data
from workbench.widgets.data_table import DataTable
from workbench.widgets.plot_view import Plotly
from workbench.widgets.slot import FigureSlot
from workbench.widgets.token_data import StepTables
from workbench.widgets.token_view import TokenView
from workbench.widgets.views import VIEWS, View
from workbench.widgets.views.base import WIDE

METRIC = "entropy/mean"
MARK = "#D55E00"


class Explorer:
    """Interactive exploration of runs in JupyterLab; display it. `select(run_id, step)` does what a click does.

    Two figures and one token view serve all views. Raises ValueError without runs.
    """

    def __init__(self, runs=None):
        self.runs: dict[str, Run] = {run.id: run for run in run_data.resolve(runs)}
        self.table = run_data.run_table(self.runs.values())
        self.run = next(iter(self.runs.values()))
        self.step: int | None = None
        self.curves, self.detail = FigureSlot(), FigureSlot()
        self._token_view: TokenView | None = None
        self._token_box, self._view_box = ipywidgets.VBox(), ipywidgets.VBox()
        self._message = ipywidgets.Label()
        self._busy = self._ready = False
        self._views: dict[str, View] = {}
        self._shown: View | None = None
        self._make_run_controls()
        self._make_view_controls()
        self.widget = ipywidgets.VBox(self._layout())
        self._select_first()
        self._ready = True
        self.draw_curves()

    def _ipython_display_(self) -> None:
        display(self.widget)

    def chosen(self) -> list[Run]:
        """The runs ticked in the table."""
        return [self.runs[self._listed[place]] for place in self.run_list.selected]

    def labels(self) -> dict[str, str]:
        """Run id -> the group it is drawn with."""
        return run_data.group_labels(self.table, self.group.value)

    def tables(self) -> StepTables:
        """The kept step on show. Raises ValueError if the run kept none."""
        if self._token_view is None or not self.run.rollout_steps:
            raise ValueError(f"Not recorded: rollouts of run {self.run.id}; its curves are all there is.")
        return self._token_view.tables

    def select(self, run_id: str, step: int) -> None:
        """Go to a run and a step; the nearest kept step is shown."""
        self.step = step  # where the run opens, if it is another than the one on show
        self.run_choice.value = run_id
        self.show_run_tokens(step)
        self.go_to(step)

    def go_to(self, step: int) -> None:
        """Go to a step of the tokens on show."""
        if self._token_view is None:
            return
        self._token_view.step = min(self._token_view.header["steps"], key=lambda kept: abs(kept - step))
        self._mark_step()

    def mark(self, mask: np.ndarray | None, words: str) -> None:
        """Set tokens of the step apart in the text; None for none."""
        if self._token_view is not None and (mask is not None or self._token_view.frame.get("marked")):
            self._token_view.mark(mask, words)

    def redraw(self) -> None:
        """Draw the view on show anew."""
        if self._shown is None or self._busy:
            return
        self._busy = True
        try:
            self._shown.draw()
            self.detail.widget.layout.display = "" if self._shown.figure else "none"
        except ValueError as error:
            self._shown.say(str(error))
            self.detail.widget.layout.display = "none"
        except Exception as error:  # a defect: said where people look, and raised for the log
            self._shown.say(f"This view failed, {type(error).__name__}: {error}")
            self.detail.widget.layout.display = "none"
            raise
        finally:
            self._busy = False

    def draw_curves(self) -> None:
        """The overlay of the runs ticked."""
        if not self._ready:
            return
        runs = self.chosen()
        try:
            curves = run_data.curves(runs, self.metric.value, self.labels()) if runs else None
            if curves is None:
                raise ValueError("Tick a run in the table to see its curve.")
            fig = overlay(
                curves,
                self.metric.value,
                phi=self.smoothing.value,
                bands=self.bands.value,
                log_x=self.log_x.value,
                log_y=self.log_y.value,
                reference=None if self.reference.value == "none" else published_curve(self.reference.value),
            )
        except ValueError as error:
            self._message.value = str(error)
            return
        self._message.value = ""
        self.curves.show(fig, clicked=self._curve_clicked)
        self._mark_step()

    def show_run_tokens(self, step: int | None = None) -> None:
        """The run's own tokens in the token view, after another source was on show."""
        if self.run.rollout_steps and (self._token_view is None or self._shown_source() != self.run.id):
            self._open_tokens(self.run, step if step is not None else self.step)

    def show_pair(self, pair, step: int | None) -> StepTables:
        """Two runs side by side in the token view, at `step` or where it stands."""
        if self._shown_source() != pair.id:
            self._open_tokens(pair, self.step if step is None else step)
        return self._token_view.tables

    def _shown_source(self) -> str | None:
        return self._token_view.header["run"] if self._token_view is not None else None

    def _open_tokens(self, source, step: int | None) -> None:
        busy, self._busy = self._busy, True
        if self._token_view is None:
            self._token_view = TokenView(source, step=step)
            self._token_view.observe(lambda _change: self._stepped(), "step")
            self._token_box.children = (self._token_view,)
        else:
            self._token_view.show_run(source, step)
        self._busy = busy
        self._stepped()

    def _stepped(self) -> None:
        """The token view moved: figures follow."""
        if self._token_view.step != self.step:
            self.step = self._token_view.step
        self._mark_step()
        self.redraw()

    def _mark_step(self) -> None:
        if self.curves.plot is not None:
            self.curves.plot.shapes = self._step_line()

    def _step_line(self) -> list[dict]:
        """A line through the curves at the step on show."""
        line = {"color": MARK, "width": 1.5, "dash": "dot"}
        ends = {"x0": self.step, "x1": self.step, "y0": 0, "y1": 1, "yref": "paper"}
        return [] if self.step is None else [{"type": "line", "line": line, **ends}]

    def _curve_clicked(self, trace, place: int) -> None:
        if trace.meta in self.runs:
            self.select(trace.meta, int(trace.x[place]))

    def _select_first(self) -> None:
        kept = [run for run in self.runs.values() if run.rollout_steps]
        if kept:
            self.run = kept[0]
            self.run_choice.value = self.run.id
            self.show_run_tokens(self.run.rollout_steps[0])
        self._view_chosen()

    def _run_chosen(self) -> None:
        self.run = self.runs[self.run_choice.value]
        if self.run.rollout_steps:
            self.show_run_tokens()
        else:
            self.redraw()

    def _view_chosen(self) -> None:
        left, self._shown = self._shown, None  # nobody draws while the view changes
        if left is not None:
            self.mark(None, "")
            left.leave()
        kind = next(view for view in VIEWS if view.title == self.view_choice.value)
        if kind.title not in self._views:
            self._views[kind.title] = kind(self)
        self._shown = self._views[kind.title]
        self._view_box.children = (self._shown.controls,)
        self._token_box.layout.display = "" if kind.tokens else "none"
        self.detail.widget.layout.display = "" if kind.figure else "none"
        self.redraw()

    def _list_runs(self) -> None:
        """The run table under the filter, everything in it ticked."""
        try:
            rows, caption = self._rows_listed(self.filter.value)
        except ValueError as error:
            self._message.value = str(error)
            return
        self._message.value = ""
        self.run_list.show(rows, caption, selected=range(len(rows)))

    def _rows_listed(self, query: str):
        """Rows and caption of the run table under a filter."""
        rows = run_data.filter_runs(self.table, query)
        names = dict.fromkeys([*run_data.ALWAYS, *run_data.varying(self.table)])
        self._listed = list(rows["id"])
        caption = f"{len(rows)} of {len(self.table)} runs" if len(rows) < len(self.table) else f"{len(rows)} runs"
        return rows[list(names)], caption

    def _make_run_controls(self) -> None:
        rows, caption = self._rows_listed("")
        self.run_list = DataTable(rows, caption, selected=range(len(rows)), selectable=True)
        self.filter = ipywidgets.Text(
            placeholder="filter: word, seed=1, entropy/mean<0.1, methods~clip",
            description="runs",
            continuous_update=False,
            layout={"width": "480px"},
        )
        fields = run_data.varying(self.table)
        self.group = ipywidgets.Dropdown(options=["run", *fields], value="methods" if "methods" in fields else "run",
                                         description="group by")  # fmt: skip
        names = run_data.metric_names(self.runs.values()) or [METRIC]
        self.metric = ipywidgets.Combobox(
            options=names,
            value=METRIC if METRIC in names else names[0],
            description="metric",
            ensure_option=True,
            continuous_update=False,
        )
        self.smoothing = ipywidgets.FloatSlider(
            description="smoothing", min=0, max=0.95, step=0.05, value=0.6, layout={"width": "280px"}
        )
        several = self.table.groupby("methods")["id"].size().max() > 1 if len(self.table) else False
        tick = lambda words, value=False: ipywidgets.Checkbox(  # noqa: E731
            description=words, value=bool(value), indent=False, layout={"width": "auto", "margin": "2px 12px 2px 0"}
        )
        self.bands = tick("seeds as bands", several and self.group.value != "run")
        self.log_x, self.log_y = tick("log steps"), tick("log values")
        self.reference = ipywidgets.Dropdown(
            options=["none", *published_curves()["name"]], description="published", style=WIDE
        )
        self.filter.observe(lambda _change: (self._list_runs(), self.draw_curves()), "value")
        self.run_list.observe(lambda _change: self._runs_ticked(), "selected")
        for control in (self.metric, self.smoothing, self.bands, self.log_x, self.log_y, self.reference):
            control.observe(lambda _change: self.draw_curves(), "value")
        self.group.observe(lambda _change: (self.draw_curves(), self.redraw()), "value")

    def _runs_ticked(self) -> None:
        self.draw_curves()
        if self._shown is not None and not self._shown.tokens:
            self.redraw()

    def _make_view_controls(self) -> None:
        self.run_choice = ipywidgets.Dropdown(options=list(self.runs), description="run", layout={"width": "430px"})
        self.run_choice.observe(lambda _change: self._run_chosen(), "value")
        self.view_choice = ipywidgets.ToggleButtons(
            options=[view.title for view in VIEWS], style={"button_width": "auto"}
        )
        self.view_choice.observe(lambda _change: self._view_chosen(), "value")

    def _layout(self) -> list[ipywidgets.Widget]:
        row = lambda *parts: ipywidgets.HBox(parts, layout={"flex_flow": "row wrap", "align_items": "center"})  # noqa: E731
        return [
            row(self.filter, self.group),
            self.run_list,
            row(self.metric, self.smoothing, self.bands, self.log_x, self.log_y, self.reference),
            self._message,
            self.curves.widget,
            row(self.view_choice, self.run_choice),
            self._view_box,
            self.detail.widget,
            self._token_box,
        ]


class PlainExplorer:
    """What a batch run shows in place of the explorer: the overlay, the config diff, and the first run's tokens."""

    def __init__(self, runs=None):
        from workbench.widgets.token_view import StaticTokenView

        found = run_data.resolve(runs)
        table = run_data.run_table(found)
        by = "methods" if table["methods"].nunique() > 1 else "run"
        labels = run_data.group_labels(table, by)
        self.figure = overlay(run_data.curves(found, METRIC, labels), METRIC, bands=by == "methods")
        self.diff = run_data.config_diff(table, list(table["id"]))
        kept = next((run for run in found if run.rollout_steps), None)
        self.tokens = StaticTokenView(kept) if kept else None

    def _ipython_display_(self) -> None:
        display(self.figure, self.diff)
        if self.tokens is not None:
            display(self.tokens)


def explore(runs=None):
    """Explore stored runs: all of `outputs/runs`, a folder of runs, or the ones given (Run, path or id).

    A live explorer where somebody watches; plain figures and static tokens in batch notebooks. Raises ValueError when
    there are no runs.
    """
    from workbench.widgets.frontend import live_front_end

    if not live_front_end():
        return PlainExplorer(runs)
    plotly = Plotly()  # the page reads it while the runs are read here
    explorer = Explorer(runs)
    plotly.close()
    return explorer
