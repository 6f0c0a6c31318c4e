"""Turns plotly's JSON outputs into HTML that paints offline, with a caption and a data table beside each figure."""

import json
import re
from html import escape

import plotly.graph_objects as go
from nbconvert.preprocessors import Preprocessor

from workbench.plots import data_table, summary
from workbench.report.claims import CLAIMS_JSON
from workbench.report.thumbnail import thumbnail

PLOTLY_JSON = "application/vnd.plotly.v1+json"
MAX_TABLE_ROWS = 200


class PaintedFigures(Preprocessor):
    """nbconvert preprocessor: plotly outputs become `text/html`; the page paints them with one shared plotly.js."""

    def preprocess_cell(self, cell, resources, index):
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if PLOTLY_JSON in data:
                output["data"] = {"text/html": figure_html(data[PLOTLY_JSON])}
                resources["figures"] = resources.get("figures", 0) + 1
            data.pop(CLAIMS_JSON, None)
        return cell, resources


def card_entries(notebook) -> dict:
    """What the index page shows of an executed notebook: the `question` (the first paragraph in bold), how many claims
    had which verdict, and a `thumbnail` of its last figure with curves."""
    bold = (
        re.search(r"^\*\*(.+?)\*\*$", cell.source, re.MULTILINE)
        for cell in notebook.cells
        if cell.cell_type == "markdown"
    )
    outputs = [output.get("data", {}) for cell in notebook.cells for output in cell.get("outputs", [])]
    counts: dict[str, int] = {}
    for data in outputs:
        for verdict, count in data.get(CLAIMS_JSON, {}).items():
            counts[verdict] = counts.get(verdict, 0) + int(count)
    drawings = (thumbnail(data[PLOTLY_JSON]) for data in outputs[1:] + outputs[:1] if PLOTLY_JSON in data)
    question = next((found[1] for found in bold if found), "")
    return {"question": question, "verdicts": counts, "thumbnail": next((svg for svg in drawings if svg), "")}


def figure_html(plotly_json: dict) -> str:
    """HTML of one figure: an empty box, its JSON (`<` escaped: no label can end the block), caption and table."""
    content = json.dumps({key: plotly_json[key] for key in ("data", "layout")}, separators=(",", ":"))
    fig = go.Figure(json.loads(content))
    payload = content.replace("<", "\\u003c")
    sentence = summary(fig)
    caption = f"<figcaption>{escape(sentence)}</figcaption>" if sentence else ""
    label = escape(sentence or "figure", quote=True)
    height = int(fig.layout.height or 450)
    return (
        f'<figure class="wb-figure"><div class="wb-plot" role="img" aria-label="{label}" style="min-height:{height}px">'
        f'</div><script type="application/json">{payload}</script>{caption}{table_html(fig)}</figure>'
    )


def table_html(fig: go.Figure) -> str:
    """The numbers of a figure as a collapsed table, at most MAX_TABLE_ROWS rows; "" for figures without curves."""
    table = data_table(fig)
    if table.empty:
        return ""
    note = f"first {MAX_TABLE_ROWS} of {len(table)} rows" if len(table) > MAX_TABLE_ROWS else f"{len(table)} rows"
    body = table.head(MAX_TABLE_ROWS).to_html(index=False, border=0, na_rep="–", float_format=lambda v: f"{v:.5g}")
    return f'<details class="wb-data"><summary>Data table ({note})</summary><div>{body}</div></details>'
