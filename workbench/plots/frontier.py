"""Entropy against performance: runs as paths, with the law R = −a·e^H + b of each group."""

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from workbench.metrics.law import LawFit
from workbench.metrics.series import ema
from workbench.plots.describe import describe
from workbench.plots.sampling import thin
from workbench.plots.text import plain
from workbench.plots.theme import OKABE_ITO, axis, faint, figure, panel_title

SYMBOLS = ("circle", "square", "diamond", "cross", "triangle-up", "star", "x")
POINTS = 300


def frontier(paths: pd.DataFrame, fits: dict[str, LawFit], phi: float = 0.85) -> go.Figure:
    """Runs as paths in (entropy, reward), smoothed, from the open to the filled marker.

    `paths`: `run`, `group`, `step`, `entropy` (nats), `reward`. `fits`: group -> law, drawn dashed over the entropies
    seen and on to H = 0, where its ceiling stands with its interval. Traces carry their run's id in `meta`.
    """
    fig = figure(480, hovermode="closest")
    groups = list(dict.fromkeys(paths["group"]))
    sentences = []
    for index, group in enumerate(groups):
        colour, symbol = OKABE_ITO[index % len(OKABE_ITO)], SYMBOLS[index % len(SYMBOLS)]
        rows = paths[paths["group"] == group]
        for number, (run, own) in enumerate(rows.groupby("run", sort=False)):
            _add_path(fig, run, own.dropna(), group, colour, symbol, phi, legend=number == 0)
        if group in fits:
            _add_law(fig, fits[group], group, colour, rows["entropy"].max(), index)
            low, high = fits[group].ceiling_interval
            sentences.append(f"{group}: ceiling {fits[group].ceiling:.2f} [{low:.2f}, {high:.2f}]")
    fig.layout.xaxis = axis(title="entropy, nats per token", rangemode="tozero", zeroline=True, zerolinecolor="#888888")
    fig.layout.yaxis = axis()
    fig.add_annotation(panel_title("Reward", "against entropy; ○ first step, ● last; dashed: R = −a·e^H + b", y=1))
    fig.layout.legend = {"orientation": "h", "x": 0, "y": -0.16, "xanchor": "left", "yanchor": "top"}
    fig.layout.margin.b = 90
    return describe(fig, f"Runs in entropy and reward. {'; '.join(sentences)}.", select="step")


def _add_path(fig, run, own, group, colour, symbol, phi, legend):
    entropy, reward = ema(own["entropy"], phi), ema(own["reward"], phi)
    kept = thin(entropy, POINTS)
    ends = {int(kept[0]), int(kept[-1])}
    fig.add_scatter(
        x=entropy[kept],
        y=reward[kept],
        customdata=own["step"].to_numpy()[kept],
        mode="lines+markers",
        name=plain(group, 60),
        legendgroup=group,
        showlegend=legend,
        meta=run,
        line={"color": faint(colour, 0.6), "width": 1.4},
        marker={
            "color": ["rgba(0,0,0,0)" if k == kept[0] else colour for k in kept],
            "size": [11 if int(k) in ends else 2 for k in kept],
            "symbol": symbol,
            "line": {"color": colour, "width": [2 if int(k) in ends else 0 for k in kept]},
        },
        hovertemplate="step %{customdata}: entropy %{x:.3f}, reward %{y:.3f}<extra>" + plain(run, 60) + "</extra>",
    )


def _add_law(fig, fit, group, colour, until, index):
    grid = np.linspace(0, until, 80)
    fig.add_scatter(
        x=grid, y=fit.predict(grid), mode="lines", line={"color": colour, "dash": "dash", "width": 1.5},
        legendgroup=group, showlegend=False, name=f"law of {plain(group, 60)}", hovertemplate="law: %{y:.3f}",
    )  # fmt: skip
    low, high = fit.ceiling_interval
    fig.add_scatter(
        x=[0.002 + 0.004 * index], y=[fit.ceiling], mode="markers", legendgroup=group, showlegend=False,
        marker={"color": colour, "size": 9, "symbol": "line-ew-open"}, name=f"ceiling of {plain(group, 60)}",
        error_y={"type": "data", "symmetric": False, "array": [high - fit.ceiling], "arrayminus": [fit.ceiling - low],
                 "color": colour, "thickness": 2, "width": 5},
        hovertemplate=f"ceiling {fit.ceiling:.3f} [{low:.3f}, {high:.3f}], R² {fit.r2:.2f}",
    )  # fmt: skip
