"""A place for figures: one figure after another, each with its words and its numbers."""

from collections.abc import Callable
from functools import partial
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
        self._fold: ipywidgets.Accordion | None = None
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
        numbers = partial(data_table, fig) if table is None else lambda: table
        self._words.value = f'<p style="margin:2px 8px;line-height:1.4">{escape(summary(fig))}</p>'
        kind = [(trace.type, trace.name) for trace in fig.data]
        if self.plot is None or self.plot.deaf or kind != self._kind:
            self.plot, self._kind = PlotView(fig), kind
            self._table, opened = DataTable(), self._open
            self._fold = ipywidgets.Accordion([self._table], titles=("Numbers of this figure",))
            self._fold.selected_index = 0 if opened else None
            self._fold.observe(lambda _change: self._fill(), "selected_index")
            self.widget.children = (self.plot, self._words, self._fold)
        else:
            self.plot.figure = fig
        self._numbers = numbers
        self._fill()
        self.plot.clicked, self.plot.brushed = clicked, brushed

    def table(self, frame: pd.DataFrame) -> None:
        """Other numbers beside the same figure."""
        self._numbers = lambda: frame
        self._fill()

    def unfold(self) -> None:
        """Show the numbers, which are folded away at first."""
        self._fold.selected_index = 0

    @property
    def numbers(self) -> pd.DataFrame:
        """The numbers of the figure on show."""
        return self._numbers()

    @property
    def _open(self) -> bool:
        return self._fold is not None and self._fold.selected_index == 0

    def _fill(self) -> None:
        """Put the numbers into the table, if anybody sees it: they are many, and figures are redrawn at every move."""
        if self._open:
            self._table.show(self.numbers)
