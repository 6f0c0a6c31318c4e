"""A table that a notebook and its report show whole."""

from __future__ import annotations

from html import escape

import pandas as pd


class WholeTable(pd.DataFrame):
    """A data frame shown without its index and with every cell at full length; numbers to four digits, and below it
    `title`, `unit` and `source` of its `attrs`. Selecting from it or computing with it gives a plain data frame."""

    def _repr_html_(self) -> str:
        with pd.option_context("display.max_colwidth", None):
            table = self.to_html(index=False, border=0, na_rep="–", float_format=lambda value: f"{value:.4g}")
        said = ". ".join(self.attrs[key] for key in ("title", "unit", "source") if key in self.attrs)
        return table + (f"<p><small>{escape(said)}.</small></p>" if said else "")
