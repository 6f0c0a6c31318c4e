"""A table that a notebook and its report show whole."""

from __future__ import annotations

import pandas as pd


class WholeTable(pd.DataFrame):
    """A data frame shown without its index and with every cell at full length; numbers to four digits. Selecting from
    it or computing with it gives a plain data frame."""

    def _repr_html_(self) -> str:
        with pd.option_context("display.max_colwidth", None):
            return self.to_html(index=False, border=0, na_rep="–", float_format=lambda value: f"{value:.4g}")
