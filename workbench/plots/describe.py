"""What a figure says in words and as a table, for readers who do not see it; stored in the figure itself.

`layout.meta` holds `summary` (one sentence), and, where a click on a point means "show this step", `run` and
`select = "step"`, which the token view listens for.
"""

import base64

import numpy as np
import pandas as pd
import plotly.graph_objects as go


def describe(fig: go.Figure, summary: str, *, run=None, select=None, drawn: int = 0, total: int = 0) -> go.Figure:
    """Attach summary and click target to `fig`, which says so itself when only `drawn` of `total` points are shown."""
    if drawn < total:
        note = f"drawn {drawn:,} of {total:,} points; extremes kept"
        summary = f"{summary} ({note}.)"
        fig.add_annotation(
            text=note, x=1, y=0, xref="paper", yref="paper", yshift=-34, xanchor="right", yanchor="top", showarrow=False
        )
    fig.layout.meta = {"summary": summary, "run": run, "select": select}
    return fig


def summary(fig: go.Figure) -> str:
    """The one-sentence description of a workbench figure, "" when it has none."""
    meta = fig.layout.meta
    return meta.get("summary", "") if isinstance(meta, dict) else ""


def data_table(fig: go.Figure) -> pd.DataFrame:
    """The numbers drawn, one row per x value and one column per named trace (left out: bands, unnamed traces, and those
    that say nothing on hover)."""
    columns: dict[str, pd.Series] = {}
    index_name = fig.layout.xaxis.title.text or "x"
    for trace in fig.data:
        behind = trace.fill not in (None, "none") or trace.hoverinfo == "skip"
        if trace.type != "scatter" or not trace.name or behind:
            continue
        label, suffix = trace.name, 2
        while label in columns:
            label, suffix = f"{trace.name} ({suffix})", suffix + 1
        columns[label] = pd.Series(trace_numbers(trace.y).astype(float), index=pd.Index(trace_numbers(trace.x)))
    if not columns:
        return pd.DataFrame()
    table = pd.concat([c[~c.index.duplicated()] for c in columns.values()], axis=1, keys=columns).sort_index()
    return table.rename_axis(index_name).reset_index()


def trace_numbers(values) -> np.ndarray:
    """Values of a trace as an array; figures read back from JSON hold typed arrays as {"dtype", "bdata" in base64}."""
    if isinstance(values, dict):
        return np.frombuffer(base64.b64decode(values["bdata"]), dtype=np.dtype(values["dtype"]))
    return np.asarray(values)
