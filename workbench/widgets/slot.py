"""A place for figures: one figure after another, each with its words and its numbers."""

from collections.abc import Callable
from html import escape

import ipywidgets
import pandas as pd
import plotly.graph_objects as go

from workbench.plots import data_table, summary
from workbench.widgets.data_table import DataTable
from workbench.widgets.plot_view import PlotView


class FigureSlot:
    """Display `widget`; `show` draws a figure in place of what was drawn."""

    def __init__(self):
        self.plot: PlotView | None = None
        self._words = ipywidgets.HTML()
        self.widget = ipywidgets.VBox()

    def show(
        self,
        fig: go.Figure,
        table: pd.DataFrame | None = None,
        clicked: Callable | None = None,
        brushed: Callable | None = None,
    ) -> None:
        """Draw `fig`. `table`: its numbers, by default those of its curves.

        `clicked(trace, place)`: a point was clicked. `brushed(xrange, yrange)`: a box was drawn.
        """
        fig.layout.autosize = True  # as wide as the cell
        numbers = data_table(fig) if table is None else table
        self._words.value = f'<p style="margin:2px 8px;line-height:1.4">{escape(summary(fig))}</p>'
        kind = [(trace.type, trace.name) for trace in fig.data]
        if self.plot is None or self.plot.deaf or kind != self._kind:
            self.plot, self._table, self._kind = PlotView(fig), DataTable(numbers), kind
            accordion = ipywidgets.Accordion([self._table], titles=("Numbers of this figure",))
            self.widget.children = (self.plot, self._words, accordion)
        else:
            self.plot.figure = fig
            self.table(numbers)
        self.plot.clicked, self.plot.brushed = clicked, brushed

    def table(self, frame: pd.DataFrame) -> None:
        """Other numbers beside the same figure."""
        self._table.show(frame)
