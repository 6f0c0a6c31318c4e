"""A table in the browser: run lists, and the numbers beside every figure. All cells are text, never markup."""

import math
from importlib.resources import files

import anywidget
import numpy as np
import pandas as pd
import traitlets

from workbench.widgets.token_data import clean

ASSETS = files("workbench.widgets")
ROWS, CELL = 1000, 400
"""Rows and characters per cell that travel to the browser."""


class DataTable(anywidget.AnyWidget):
    """A data frame on show; with `selectable` rows are chosen by checkboxes, `selected` holding their places."""

    _esm = (ASSETS / "data_table.js").read_text()
    _css = (ASSETS / "data_table.css").read_text()
    columns = traitlets.List().tag(sync=True)
    rows = traitlets.List().tag(sync=True)
    selected = traitlets.List().tag(sync=True)
    selectable = traitlets.Bool(False).tag(sync=True)
    caption = traitlets.Unicode().tag(sync=True)
    digits = traitlets.Int(4).tag(sync=True)

    def __init__(self, frame: pd.DataFrame | None = None, caption: str = "", selected=(), **settings):
        content = {} if frame is None else _content(frame, caption, selected)
        super().__init__(**content, **settings)

    def show(self, frame: pd.DataFrame, caption: str = "", selected=()) -> None:
        """Put `frame` on show: its first `ROWS` rows, said so in the caption if there are more."""
        with self.hold_sync():
            for name, value in _content(frame, caption, selected).items():
                setattr(self, name, value)


def _content(frame: pd.DataFrame, caption: str, selected) -> dict:
    if len(frame) > ROWS:
        caption = f"{caption} First {ROWS:,} of {len(frame):,} rows.".strip()
    return {
        "columns": [clean(name, CELL) for name in frame.columns],
        "caption": caption,
        "selected": list(selected),
        "rows": [[_cell(value) for value in row] for row in frame.head(ROWS).itertuples(index=False)],
    }


def _cell(value):
    """A JSON value: numbers stay numbers, nothing recorded is None, all else is text."""
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None if math.isnan(value) else str(float(value))
    return None if value is None or value is pd.NA or value is pd.NaT else clean(value, CELL)
