"""Panels that share arms: one or two side by side, an arm in the same colour everywhere, one legend below all."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from workbench.plots.sampling import thin
from workbench.plots.theme import DASHES, OKABE_ITO, axis, faint, figure, panel_title

SYMBOLS = ("circle", "square", "diamond", "cross", "triangle-up", "triangle-down", "star")
PANEL_PIXELS, GAP_PIXELS, ROW_PIXELS = 280, 96, 20
"""Heights of a panel, of what lies between two, and of a row of the legend."""
WIDE_PIXELS = 310
"""Height of a panel that has the figure for itself."""
LEGEND_PIXELS, LETTER_PIXELS, MARK_PIXELS = 880, 7.2, 52
"""Width for the legend, and what a letter and the mark of an entry take of it."""
TITLE_LETTERS = 56
"""Letters of title and unit that fit above one of two panels; the unit gives way."""
TOLD = 8
"""Arms that the sentence below a figure names; all of them are in its table."""


def panels(titles: Sequence[tuple[str, str]], arms: Sequence[str]) -> go.Figure:
    """An empty figure with one panel per (title, unit), two in a row if there are several, and room for the legend of
    `arms`. Give traces `on(panel)`; set axes by `fig.layout[x_of(panel)]`."""
    columns = min(len(titles), 2)
    rows = -(-len(titles) // columns)
    inner = PANEL_PIXELS * rows + GAP_PIXELS * (rows - 1) if len(titles) > 1 else WIDE_PIXELS
    below = 64 + ROW_PIXELS * legend_rows(arms)
    fig = figure(inner + 48 + below, hovermode="closest")
    fig.layout.margin.b = below
    fig.layout.legend = {
        "orientation": "h", "x": 0, "xanchor": "left", "yref": "container", "y": 0, "yanchor": "bottom",
    }  # fmt: skip
    each, gap = (inner - GAP_PIXELS * (rows - 1)) / rows / inner, GAP_PIXELS / inner
    for index, (title, unit) in enumerate(titles):
        row, column = divmod(index, columns)
        left, right = (0, 1) if columns == 1 else ((0, 0.46), (0.54, 1))[column]
        top = 1 - row * (each + gap)
        fig.layout[x_of(index)] = axis(domain=[left, right], anchor=on(index)["yaxis"])
        fig.layout[y_of(index)] = axis(domain=[max(0.0, top - each), top], anchor=on(index)["xaxis"])
        room = TITLE_LETTERS if columns > 1 else 2 * TITLE_LETTERS
        title = title if "@" in title else title[:1].upper() + title[1:]
        fig.add_annotation(panel_title(title, unit if len(title + unit) <= room else "", y=top, x=left))
    return fig


def on(panel: int) -> dict[str, str]:
    """The axes of a panel, as traces name them."""
    number = "" if panel == 0 else panel + 1
    return {"xaxis": f"x{number}", "yaxis": f"y{number}"}


def x_of(panel: int) -> str:
    """The x axis of a panel, as the layout names it."""
    return f"xaxis{'' if panel == 0 else panel + 1}"


def y_of(panel: int) -> str:
    """The y axis of a panel, as the layout names it."""
    return f"yaxis{'' if panel == 0 else panel + 1}"


def legend_rows(names: Sequence[str]) -> int:
    """Rows a horizontal legend needs: entries in a row of their own widths, or in columns as wide as the widest."""
    widths = [MARK_PIXELS + LETTER_PIXELS * len(name) for name in names]
    if sum(widths) <= LEGEND_PIXELS:
        return 1
    return -(-len(widths) // max(1, int(LEGEND_PIXELS / max(widths))))


def add_band(
    fig: go.Figure, table: pd.DataFrame, arm: str, index: int, panel: int = 0, title: str = "", **line
) -> None:
    """The mean of table [steps, seeds] as a line, its range as a band when there are several seeds."""
    steps = table.index.to_numpy()
    if table.shape[1] > 1:
        low, high = table.min(axis=1), table.max(axis=1)
        fig.add_scatter(
            x=np.concatenate([steps, steps[::-1]]), y=np.concatenate([high, low[::-1]]), fill="toself", mode="none",
            fillcolor=faint(OKABE_ITO[index % 7], 0.16), hoverinfo="skip", showlegend=False, legendgroup=arm,
            **on(panel),
        )  # fmt: skip
    add_line(fig, steps, table.mean(axis=1), arm, index, panel, title, **line)


def add_line(
    fig: go.Figure,
    x,
    y,
    arm: str,
    index: int,
    panel: int = 0,
    title: str = "",
    dash: str = "",
    markers: bool = False,
    legend: bool = True,
) -> None:
    """A line of `arm`, the arm number `index`. Its name, in the legend of the first panel and in the data table, says
    in further ones which `title` it is of."""
    values = np.asarray(y, dtype=float)
    kept = thin(values)
    fig.add_scatter(
        x=np.asarray(x)[kept], y=values[kept], mode="lines+markers" if markers else "lines", marker=mark(index, 6),
        name=f"{arm}: {title}" if panel else arm, legendgroup=arm.removesuffix(", published"),
        line={"color": OKABE_ITO[index % 7], "width": 2, "dash": dash or DASHES[(index // 7) % 7]},
        showlegend=legend and panel == 0, hovertemplate=f"{arm}: %{{y:.4g}}<extra></extra>", **on(panel),
    )  # fmt: skip


def mark(index: int, size: int = 11) -> dict:
    """The marker of arm number `index`: 49 pairs of colour and symbol differ."""
    return {"color": OKABE_ITO[index % 7], "symbol": SYMBOLS[(index // 7 + index) % 7], "size": size}


def recorded(metrics: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """`metrics` with a column for each of `names`, NaN where no run recorded it; a leading minus turns the sign. Raises
    ValueError when none of them was recorded."""
    plain = [name.removeprefix("-") for name in names]
    found = metrics.reindex(columns=list(dict.fromkeys(plain)))
    if found.isna().all().all():
        raise ValueError(f"no finished run recorded {plain[0]!r}")
    columns = {n: -found[p] if n.startswith("-") else found[p] for n, p in zip(names, plain, strict=True)}
    rest = metrics.drop(columns=[name for name in names if name in metrics])
    return pd.concat([rest, pd.DataFrame(columns)], axis=1)


def absent(fig: go.Figure, panel: int) -> None:
    """Say in a panel that nobody recorded what it is for."""
    x, y = fig.layout[x_of(panel)].domain, fig.layout[y_of(panel)].domain
    fig.add_annotation(text="not recorded", x=sum(x) / 2, y=sum(y) / 2, xref="paper", yref="paper", showarrow=False)


def told(sentences: Sequence[str], panels: int = 1) -> str:
    """Sentences on arms joined; of many arms as many as `panels` leave room for, and how many more there are."""
    most = max(3, TOLD // panels)
    more = f"; and {len(sentences) - most} more in the table" if len(sentences) > most else ""
    return "; ".join(sentences[:most]) + more
