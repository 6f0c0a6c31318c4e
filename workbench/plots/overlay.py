"""Many runs in one panel: raw and smoothed curves, seeds as bands, published references."""

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from workbench.metrics.series import ema
from workbench.plots.describe import describe
from workbench.plots.sampling import thin
from workbench.plots.text import plain
from workbench.plots.theme import DASHES, OKABE_ITO, REFERENCE, UNITS, axis, faint, figure, panel_title, step_axis

POINTS = 24_000
"""Drawn points of all curves together; beyond it each is thinned to its extremes, and the figure says so."""
MIN_POINTS = 120


def overlay(
    curves: pd.DataFrame,
    metric: str,
    phi: float = 0.6,
    bands: bool = False,
    log_x: bool = False,
    log_y: bool = False,
    reference: pd.DataFrame | None = None,
) -> go.Figure:
    """`metric` of many runs over rollout steps.

    `curves`: one row per run and step: `run`, `group` (label of the runs drawn in one colour), `step`, `value`.
    `phi`: share of the past in the smoothed curve, 0 for none; the raw curve stays visible behind it. `bands`: one
    curve per group, the mean over its runs, with a band from the lowest to the highest. `reference`: published curves
    (`step`, `value`, `label`), drawn dotted over the steps of the runs. Traces carry their run's id in `meta`. Raises
    ValueError without a value to draw.
    """
    curves = curves.dropna(subset=["value"])
    if curves.empty:
        raise ValueError(f"Not recorded: {metric} in any of the runs chosen.")
    name, unit = UNITS.get(metric, (metric, ""))
    groups = list(dict.fromkeys(curves["group"]))
    fig = figure(430, hovermode="closest", margin_t=40)
    lines = (len(groups) if bands else curves["run"].nunique()) * (2 if phi else 1)
    limit = max(MIN_POINTS, POINTS // max(1, lines))
    sentences, drawn, total = [], 0, 0
    for index, group in enumerate(groups):
        rows = curves[curves["group"] == group]
        colour = OKABE_ITO[index % len(OKABE_ITO)]
        draw = _add_band if bands else _add_runs
        shown, held = draw(fig, rows, group, colour, DASHES[index % len(DASHES)], phi, limit)
        drawn, total = drawn + shown, total + held
        sentences.append(f"{group}: {_ends(rows)}")
    for number, (label, rows) in enumerate(_references(reference, curves["step"].max())):
        _line(fig, rows["step"], ema(rows["value"]), label, REFERENCE, 2, "dot" if number == 0 else "dashdot", limit)
    fig.add_annotation(panel_title(name, unit, y=1))
    fig.layout.xaxis = step_axis(type="log" if log_x else "linear")
    fig.layout.yaxis = axis(type="log" if log_y else "linear")
    fig.layout.legend = {
        "orientation": "h",
        "x": 0,
        "y": -0.16,
        "xanchor": "left",
        "yanchor": "top",
        "itemsizing": "constant",
    }
    fig.layout.margin.b = 60 + 22 * (-(-len(groups) // 4))
    words = f"{name}{f', {unit}' if unit else ''}, {curves['run'].nunique()} runs. {'; '.join(sentences[:8])}."
    return describe(fig, words, select="step", drawn=drawn, total=total)


def _add_runs(fig, rows, group, colour, _dash, phi, limit):
    """Each run of a group: raw faint, smoothed on top, the dash pattern telling runs apart."""
    drawn = total = 0
    for number, (run, own) in enumerate(rows.groupby("run", sort=False)):
        values, dash = own["value"].to_numpy(float), DASHES[number % len(DASHES)]
        shared = {"legendgroup": group, "showlegend": number == 0}
        if phi:
            _line(fig, own["step"], values, f"{run}, raw", faint(colour, 0.32), 1, dash, limit, run, showlegend=False)
            values = ema(values, phi)
        _line(fig, own["step"], values, group, colour, 2.2, dash, limit, run, **shared)
        drawn, total = drawn + min(limit, len(own)), total + len(own)
    return drawn, total


def _add_band(fig, rows, group, colour, dash, phi, limit):
    """The mean of a group's runs and the range from the lowest to the highest run, each smoothed first."""
    table = rows.pivot_table(index="step", columns="run", values="value")
    smooth = table.apply(lambda column: ema(column, phi)) if phi else table
    low, mean, high = smooth.min(axis=1), smooth.mean(axis=1), smooth.max(axis=1)
    steps, kept = table.index.to_numpy(), thin(mean, limit)
    first = rows["run"].iloc[0]
    fig.add_scatter(
        x=np.concatenate([steps[kept], steps[kept][::-1]]),
        y=np.concatenate([high.to_numpy()[kept], low.to_numpy()[kept][::-1]]),
        fill="toself",
        fillcolor=faint(colour, 0.2),
        line={"width": 0},
        hoverinfo="skip",
        showlegend=False,
        legendgroup=group,
        name=f"{plain(group, 60)}, lowest to highest of {table.shape[1]} runs",
        mode="lines",
    )
    if phi:
        raw = table.mean(axis=1)
        _line(fig, steps, raw, f"{group}, raw mean", faint(colour, 0.4), 1, dash, limit, first, showlegend=False)
    seeds = f"{group} (mean of {table.shape[1]})"
    _line(fig, steps, mean.to_numpy(), seeds, colour, 2.4, dash, limit, first, legendgroup=group)
    return len(kept), len(steps)


def _line(fig, steps, values, label, colour, width, dash, limit, run=None, **shared):
    values = np.asarray(values, dtype=float)
    kept = thin(values, limit)
    fig.add_scatter(
        x=np.asarray(steps)[kept],
        y=values[kept],
        name=plain(label, 60),
        mode="lines",
        line={"color": colour, "width": width, "dash": dash},
        meta=run,
        hovertemplate="step %{x}: %{y:.4g}<extra>" + plain(run or label, 60) + "</extra>",
        **shared,
    )


def _references(reference: pd.DataFrame | None, until) -> list[tuple[str, pd.DataFrame]]:
    if reference is None:
        return []
    within = reference[reference["step"] <= until]
    return [(label, rows) for label, rows in within.groupby("label", sort=False)]


def _ends(rows: pd.DataFrame) -> str:
    by_step = rows.groupby("step")["value"].mean()
    return f"{by_step.iloc[0]:.3g} → {by_step.iloc[-1]:.3g}"
