"""A table that a notebook and its report show whole."""

from __future__ import annotations

from html import escape

import pandas as pd


class WholeTable(pd.DataFrame):
    """A data frame shown with every cell at full length, numbers to four digits, its index only if it says something,
    and below it `title`, `unit` and `source` of its `attrs`."""

    @property
    def _constructor(self) -> type[WholeTable]:
        return WholeTable

    def _repr_html_(self) -> str:
        index = not isinstance(self.index, pd.RangeIndex)
        with pd.option_context("display.max_colwidth", None):
            table = self.to_html(index=index, border=0, na_rep="–", float_format=lambda value: f"{value:.4g}")
        said = [self.attrs[key] for key in ("title", "unit", "source") if self.attrs.get(key, "1") != "1"]
        return table + (f"<p><small>{escape('. '.join(said))}.</small></p>" if said else "")
