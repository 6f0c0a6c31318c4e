"""A place for figures: one FigureWidget that shows one plain figure after another, with its words and its numbers."""

from collections.abc import Callable
from html import escape

import ipywidgets
import pandas as pd
import plotly.graph_objects as go

from workbench.plots import data_table, summary
from workbench.widgets.data_table import DataTable

KEPT = ("uid", "type")


class FigureSlot:
    """Display `widget`. A page holds few of these: each FigureWidget brings plotly.js along.

    The FigureWidget is made of the first figure shown: what is sent to one whose plotly.js still loads may be lost.
    """

    def __init__(self):
        self.figure: go.FigureWidget | None = None
        self._words = ipywidgets.HTML()
        self.widget = ipywidgets.VBox()

    def show(
        self,
        fig: go.Figure,
        table: pd.DataFrame | None = None,
        clicked: Callable | None = None,
        brushed: Callable | None = None,
    ) -> None:
        """Draw `fig` in place of what was drawn. `table`: its numbers, by default those of its curves.

        `clicked(trace, place)`: a point was clicked. `brushed(xrange, yrange)`: a box was drawn.
        """
        fig.layout.autosize = True  # as wide as the cell
        numbers = data_table(fig) if table is None else table
        words = summary(fig)
        self._words.value = f'<p style="margin:2px 8px;line-height:1.4">{escape(words)}</p>'
        if self.figure is None:
            self._begin(fig, numbers)
            self._listen(clicked, brushed)
            return
        self.table(numbers)
        shapes = [(trace.type, trace.name) for trace in fig.data]
        if shapes == [(trace.type, trace.name) for trace in self.figure.data]:
            self._renew(fig)
        else:
            self._replace(fig)
            self._listen(clicked, brushed)

    def _begin(self, fig: go.Figure, numbers: pd.DataFrame) -> None:
        self.figure = go.FigureWidget(fig)
        self._table = DataTable(numbers)
        accordion = ipywidgets.Accordion([self._table], titles=("Numbers of this figure",))
        self.widget.children = (self.figure, self._words, accordion)

    def table(self, frame: pd.DataFrame) -> None:
        """Other numbers beside the same figure."""
        self._table.show(frame)

    def _replace(self, fig: go.Figure) -> None:
        self.figure.data = ()
        self._lay_out(fig)
        self.figure.add_traces(fig.data)

    def _renew(self, fig: go.Figure) -> None:
        """Same traces with other numbers: only these travel."""
        with self.figure.batch_update():
            for shown, new in zip(self.figure.data, fig.data, strict=True):
                shown.update({key: value for key, value in new._props.items() if key not in KEPT}, overwrite=True)
            self._lay_out(fig)

    def _lay_out(self, fig: go.Figure) -> None:
        """The figure's layout; what the one before had and this one has not is taken back."""
        fresh = fig.layout.to_plotly_json()
        stale = {key: None for key in self.figure.layout.to_plotly_json() if key not in fresh}
        fresh.setdefault("shapes", [])
        self.figure.update_layout(stale | fresh | {"selections": []}, overwrite=True)

    def _listen(self, clicked, brushed) -> None:
        for trace in self.figure.data:
            if clicked:
                trace.on_click(lambda trace, points, _state: points.point_inds and clicked(trace, points.point_inds[0]))
            if brushed and trace.type == "scatter":
                trace.on_selection(lambda _trace, _points, selector: _box(selector, brushed))


def _box(selector, brushed: Callable) -> None:
    if getattr(selector, "xrange", None) and getattr(selector, "yrange", None):
        brushed(tuple(selector.xrange), tuple(selector.yrange))
