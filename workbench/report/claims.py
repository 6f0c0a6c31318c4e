"""A table of claims as a notebook and its report show it, and as the index of reports counts it."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from importlib.resources import files

import pandas as pd

CLAIMS_JSON = "application/vnd.workbench.claims+json"
"""Media type under which an output tells how many claims had which verdict."""
VERDICTS = ("reproduced", "contradicted", "inconclusive", "not run")
COLUMNS = 6
_SIGNS = {"reproduced": "✓", "contradicted": "✗", "inconclusive": "~", "not run": "–"}


class Claims:
    """Claims with verdicts: `table` as `workbench.study.claims.claims_table` makes it, `note` on testing many, and the
    address of the report on each study that has one."""

    def __init__(self, table: pd.DataFrame, note: str, reports: Mapping[str, str] | None = None):
        self.table, self.note, self.reports = table, note, dict(reports or {})

    @property
    def counts(self) -> dict[str, int]:
        """Claims by verdict."""
        return {verdict: int((self.table["verdict"] == verdict).sum()) for verdict in _SIGNS}

    def __repr__(self) -> str:
        columns = ["sentence", "published", "measured", "low", "high", "seeds", "verdict"]
        return f"{self.table[columns].to_string(index=False, float_format='%.3f')}\n{self.note}"

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict:
        return {"text/html": self._html(), "text/plain": repr(self), CLAIMS_JSON: self.counts}

    def _html(self) -> str:
        head = "".join(f"<th>{name}</th>" for name in ("verdict", "claim", "source", "published", "measured", "seeds"))
        studies = self.table.groupby(self.table["claim"].str.partition("/")[0], sort=False)
        rows = "".join(
            (self._heading(study) if len(studies) > 1 else "") + "".join(map(_row, claims.to_dict("records")))
            for study, claims in studies
        )
        css = (files("workbench.report") / "claims.css").read_text()
        return (
            f'<style>{css}</style><table class="wb-claims"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'
            f"<p><small>Measured: mean over seeds with its 95 % t interval. {escape(self.note)}</small></p>"
        )

    def _heading(self, study: str) -> str:
        """The row above the claims of one study of several, with a link to its report if there is one."""
        name = escape(study)
        if study in self.reports:
            name = f'<a href="{escape(self.reports[study], quote=True)}">{name}</a>'
        return f'<tr class="wb-study"><th colspan="{COLUMNS}">{name}</th></tr>'


def _row(row: dict) -> str:
    verdict = (
        f'<strong class="wb-{row["verdict"].replace(" ", "-")}">{_SIGNS[row["verdict"]]} {row["verdict"]}</strong>'
    )
    doubtful = row["verdict"] == "reproduced" and not row["holm"]
    reason = row["reason"] or ("not after correction for the other claims" if doubtful else "")
    cells = (
        verdict + (f"<br><small>{escape(reason)}</small>" if reason else ""),
        f"{escape(row['sentence'])}<br><small>{escape(row['prediction'])}</small>{_reading(row)}",
        escape(row["source"]),
        _number(row["published"]),
        f"{_number(row['measured'])}{_interval(row)}<br><small>{escape(row['effect'])}</small>",
        str(row["seeds"]),
    )
    return f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"


def _reading(row: dict) -> str:
    """What looking into a contradiction found; it says nothing where there is none."""
    if row["verdict"] != "contradicted" or not row["reading"]:
        return ""
    return f'<br><small class="wb-reading">{escape(row["reading"])}</small>'


def _interval(row: dict) -> str:
    return "" if pd.isna(row["low"]) else f" <small>[{row['low']:+.3f}, {row['high']:+.3f}]</small>"


def _number(value) -> str:
    return "–" if value is None or pd.isna(value) else f"{value:+.3f}"
