"""A figure in the browser that is redrawn as a whole: any plotly figure in the place of any other.

plotly's own FigureWidget carries 5 MB of plotly.js per figure, and anywidget gives it two seconds to start: on a
machine that trains meanwhile figures stay blank. Here plotly.js travels once per page and is waited for.
"""

import math
import time
from collections.abc import Callable
from importlib.resources import files

import anywidget
import numpy as np
import plotly
import plotly.graph_objects as go
import traitlets

PATIENCE = 3.0
"""Seconds after which a figure that was sent counts as not drawn."""


SCRIPT = (files("workbench.widgets") / "plot_view.js").read_text()


def plotly_js() -> bytes:
    """plotly.js itself."""
    return (files(plotly) / "package_data" / "plotly.min.js").read_bytes()


class Plotly(anywidget.AnyWidget):
    """Gives the page plotly.js as soon as it is made, while the kernel goes on: a PlotView asks for it only when it is
    on show, and a kernel answers only when it is idle. `close` it once figures are there: 5 MB, which a saved notebook
    need not hold."""

    _esm = SCRIPT
    source = traitlets.Bytes().tag(sync=True)

    def __init__(self):
        super().__init__(source=plotly_js())


class PlotView(anywidget.AnyWidget):
    """Shows `figure`; assign another to redraw. `shapes` (plotly's) are drawn over it and move without redrawing it.
    `clicked(trace, place)` and `brushed(xrange, yrange)` are called when a point is clicked or a box is drawn, and may
    be None."""

    _esm = SCRIPT
    content = traitlets.Dict().tag(sync=True)
    shapes = traitlets.List().tag(sync=True)

    def __init__(self, figure: go.Figure, clicked: Callable | None = None, brushed: Callable | None = None):
        self._figure, self.clicked, self.brushed = figure, clicked, brushed
        self._sent, self._drawn, self._when = 0, -1, time.monotonic()
        super().__init__(content=_plain(figure) | {"version": 0})
        self.on_msg(self._told)

    @property
    def figure(self) -> go.Figure:
        """The figure on show."""
        return self._figure

    @figure.setter
    def figure(self, figure: go.Figure) -> None:
        self._figure = figure
        self._sent, self._when = self._sent + 1, time.monotonic()
        self.content = _plain(figure) | {"version": self._sent}

    @property
    def deaf(self) -> bool:
        """Whether the browser has not drawn what it was sent a while ago. anywidget drops every message to a widget
        that took more than two seconds to start: such a one has to be replaced."""
        return self._drawn < self._sent and time.monotonic() - self._when > PATIENCE

    def _told(self, _widget, message: dict, _buffers) -> None:
        if isinstance(message.get("drawn"), int):
            self._drawn = message["drawn"]
        elif message.get("need") == "plotly":
            self.send({"give": "plotly"}, [plotly_js()])
        elif self.clicked and isinstance(click := message.get("click"), dict):
            self._click(click)
        elif self.brushed and isinstance(brush := message.get("brush"), dict):
            self.brushed(tuple(brush["x"]), tuple(brush["y"]))

    def _click(self, click: dict) -> None:
        curve, place = click.get("curve"), click.get("place")
        if isinstance(curve, int) and isinstance(place, int) and 0 <= curve < len(self._figure.data):
            self.clicked(self._figure.data[curve], place)


def _plain(figure: go.Figure) -> dict:
    """Data and layout as JSON values: arrays as lists, what is not finite as None."""
    content = figure.to_plotly_json()
    return {"data": _listed(content["data"]), "layout": _listed(content["layout"])}


def _listed(value):
    if isinstance(value, dict):
        return {key: _listed(part) for key, part in value.items()}
    if isinstance(value, np.ndarray) and value.dtype.kind == "f":
        finite = np.isfinite(value)
        return value.tolist() if finite.all() else np.where(finite, value.astype(object), None).tolist()
    if isinstance(value, list | tuple | np.ndarray):
        return [_listed(part) for part in value]
    if isinstance(value, np.generic):
        return _listed(value.item())
    return None if isinstance(value, float) and not math.isfinite(value) else value
