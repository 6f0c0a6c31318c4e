"""pass@k before and after training."""

import pandas as pd
import plotly.graph_objects as go

from workbench.plots.describe import describe
from workbench.plots.theme import OKABE_ITO, axis, faint, figure, panel_title

ROW_PIXELS = 330


def pass_at_k(table: pd.DataFrame) -> go.Figure:
    """pass@k of the first and the last evaluation, one panel per evaluation set, with 95 % bands over prompts.

    `table`: `step`, `set`, `k`, `value`, `low`, `high` (fractions of prompts), as made by
    `workbench.metrics.performance.pass_at_k_table`. Raises ValueError when it is empty.
    """
    if table.empty:
        raise ValueError("pass_at_k got an empty table; evaluate the run at two steps first.")
    sets = list(dict.fromkeys(table["set"]))
    rows = -(-len(sets) // _columns(len(sets)))
    fig = figure(ROW_PIXELS * rows + 40, hovermode="x unified")
    steps = sorted(table["step"].unique())
    moments = dict.fromkeys((steps[0], steps[-1]))
    sentences = []
    for index, name in enumerate(sets):
        suffix = "" if index == 0 else str(index + 1)
        _add_panel(fig, name, index, len(sets), table["k"].unique())
        rows_of_set = table[table["set"] == name]
        ends = []
        for moment, colour in zip(moments, OKABE_ITO, strict=False):
            curve = rows_of_set[rows_of_set["step"] == moment].sort_values("k")
            if curve.empty:
                continue
            label = _moment_label(moment)
            _add_band(fig, curve, label, colour, suffix, first=index == 0, several=len(sets) > 1 and name)
            ends.append(f"{label} {_first_last(curve)}")
        sentences.append(f"{name}: {', '.join(ends)}")
    fig.layout.legend.y = 1 + 26 / fig.layout.height
    return describe(fig, f"pass@k, fraction of prompts. {'; '.join(sentences)}.")


def _moment_label(step) -> str:
    return "before training" if step == 0 else f"after {step} steps"


def _first_last(curve) -> str:
    first, last = curve.iloc[0], curve.iloc[-1]
    return f"pass@{first['k']:g} {first['value']:.3f}, pass@{last['k']:g} {last['value']:.3f}"


def _columns(count: int) -> int:
    """Panels per row: three, but four panels look better as two rows of two."""
    return 2 if count == 4 else min(count, 3)


def _add_panel(fig, name, index, count, ks):
    """Axes and title of panel `index` of `count`, laid out in rows of `_columns(count)`."""
    columns = _columns(count)
    row, column = divmod(index, columns)
    rows = -(-count // columns)
    gap_x, gap_y = 0.06, 0.2
    width = (1 - gap_x * (columns - 1)) / columns
    height = (1 - gap_y * (rows - 1)) / rows
    left, top = column * (width + gap_x), 1 - row * (height + gap_y)
    suffix = "" if index == 0 else str(index + 1)
    ticks = sorted(int(k) for k in ks)
    fig.layout[f"xaxis{suffix}"] = axis(
        domain=[left, left + width], anchor=f"y{suffix}", type="log", title="k", tickvals=ticks, ticktext=ticks
    )
    fig.layout[f"yaxis{suffix}"] = axis(
        domain=[max(0, top - height), top], anchor=f"x{suffix}", range=[0, 1], matches="y" if index else None
    )
    fig.add_annotation(panel_title(f"pass@k on {name}", "" if index else "fraction of prompts", y=top, x=left))


def _add_band(fig, curve, label, colour, suffix, first, several):
    """The curve of one moment and its 95 % interval as a band."""
    axes = {"xaxis": f"x{suffix}", "yaxis": f"y{suffix}", "legendgroup": label}
    k = curve["k"].to_numpy()
    fig.add_scatter(
        x=[*k, *k[::-1]],
        y=[*curve["high"], *curve["low"][::-1]],
        fill="toself",
        fillcolor=faint(colour, 0.18),
        line={"width": 0},
        hoverinfo="skip",
        showlegend=False,
        name=f"95 % band, {label}",
        mode="lines",
        **axes,
    )
    before = label == "before training"
    fig.add_scatter(
        x=k,
        y=curve["value"],
        name=f"{label} ({several})" if several and not first else label,
        mode="lines+markers",
        cliponaxis=False,  # a marker at 1 stays whole
        line={"color": colour, "width": 2, "dash": "dash" if before else "solid"},
        marker={"size": 8, "symbol": "circle-open" if before else "circle"},
        customdata=curve[["low", "high"]].to_numpy(),
        hovertemplate="%{y:.3f} [%{customdata[0]:.3f}, %{customdata[1]:.3f}]",
        showlegend=first,
        **axes,
    )
