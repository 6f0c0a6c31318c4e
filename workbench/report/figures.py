"""Turns plotly's JSON outputs into HTML that paints offline, with a caption and a data table beside each figure."""

import json
from html import escape

import plotly.graph_objects as go
from nbconvert.preprocessors import Preprocessor

from workbench.plots import data_table, summary

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
        return cell, resources


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
