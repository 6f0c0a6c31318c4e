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
LEGEND = 16
"""Groups that a legend names; of more, each curve says on hover whose it is."""


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
    named = len(groups) <= LEGEND
    colours = {group: OKABE_ITO[index % len(OKABE_ITO)] for index, group in enumerate(groups)}
    fig = figure(430, hovermode="closest", margin_t=40)
    lines = (len(groups) if bands else curves["run"].nunique()) * (2 if phi else 1)
    limit = max(MIN_POINTS, POINTS // max(1, lines))
    # Without a legend to switch groups off, curves of one colour count as one group: few traces are drawn faster.
    units = curves["group"] if named or bands else curves["group"].map(colours)
    drawn = total = 0
    for index, (_, rows) in enumerate(curves.groupby(units, sort=False)):
        draw = _add_band if bands else _add_runs
        colour, dash = colours[rows["group"].iloc[0]], DASHES[index % len(DASHES)]
        shown, held = draw(fig, rows, colour, dash, phi, limit)
        drawn, total = drawn + shown, total + held
    sentences = [f"{group}: {_ends(curves[curves['group'] == group])}" for group in groups[:8]]
    for number, (label, rows) in enumerate(_references(reference, curves["step"].max())):
        _line(fig, rows["step"], ema(rows["value"]), label, REFERENCE, 2, "dot" if number == 0 else "dashdot", limit)
    fig.add_annotation(panel_title(name, unit, y=1))
    fig.layout.xaxis = step_axis(type="log" if log_x else "linear")
    fig.layout.yaxis = axis(type="log" if log_y else "linear")
    fig.layout.legend = {
        "orientation": "h",
        "x": 0,
        "xanchor": "left",
        "y": 0.01,
        "yref": "container",
        "yanchor": "bottom",
        "itemsizing": "constant",
    }
    fig.layout.showlegend = named
    fig.layout.margin.b = 60 + 22 * (-(-len(groups) // 4) if named else 1)
    words = f"{name}{f', {unit}' if unit else ''}, {curves['run'].nunique()} runs. {'; '.join(sentences)}."
    if len(groups) > 8:
        words = f"{words[:-1]}; and {len(groups) - 8} more."
    return describe(fig, words, select="step", drawn=drawn, total=total)


def _add_runs(fig, rows, colour, _dash, phi, limit):
    """The runs of `rows`, the dash pattern telling them apart: smoothed, and all raw curves faint behind in one
    trace."""
    runs = [own for _, own in rows.groupby("run", sort=False)]
    values = [own["value"].to_numpy(float) for own in runs]
    first = rows["group"].iloc[0]
    if phi:
        kept = [thin(raw, limit) for raw in values]
        gap = [np.nan]  # between two runs
        x = [part for own, k in zip(runs, kept, strict=True) for part in (own["step"].to_numpy(float)[k], gap)]
        y = [part for raw, k in zip(values, kept, strict=True) for part in (raw[k], gap)]
        _trace(fig, np.concatenate(x), np.concatenate(y), f"{first}, raw", faint(colour, 0.32), 1, "solid", first,
               showlegend=False, hoverinfo="skip", hovertemplate=None)  # fmt: skip
    for number, (own, raw) in enumerate(zip(runs, values, strict=True)):
        group, run, dash = own["group"].iloc[0], own["run"].iloc[0], DASHES[number % len(DASHES)]
        smooth = ema(raw, phi) if phi else raw
        _line(fig, own["step"], smooth, group, colour, 2.2, dash, limit, first, run, raw, showlegend=number == 0)
    return sum(min(limit, len(raw)) for raw in values), sum(map(len, values))


def _add_band(fig, rows, colour, dash, phi, limit):
    """The mean of a group's runs and the range from the lowest to the highest run, each smoothed first."""
    table = rows.pivot_table(index="step", columns="run", values="value")
    smooth = table.apply(lambda column: ema(column, phi)) if phi else table
    low, mean, high = smooth.min(axis=1), smooth.mean(axis=1), smooth.max(axis=1)
    steps, kept = table.index.to_numpy(), thin(mean, limit)
    group, first, raw = rows["group"].iloc[0], rows["run"].iloc[0], table.mean(axis=1).to_numpy()
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
        name = f"{group}, raw mean"
        _line(fig, steps, raw, name, faint(colour, 0.4), 1, dash, limit, group, first, showlegend=False)
    seeds = f"{group} (mean of {table.shape[1]})"
    _line(fig, steps, mean.to_numpy(), seeds, colour, 2.4, dash, limit, group, first, raw)
    return len(kept), len(steps)


def _line(fig, steps, values, label, colour, width, dash, limit, group=None, run=None, raw=None, **settings):
    """One curve, thinned to `limit` points, that names its run and, if it is smoothed, the `raw` value on hover."""
    values = np.asarray(values, dtype=float)
    kept = thin(values, limit)
    behind = "" if raw is None else " (raw %{customdata:.4g})"
    settings |= {} if raw is None else {"customdata": raw[kept]}
    words = "step %{x}: %{y:.4g}" + behind + "<extra>" + plain(run or label, 60) + "</extra>"
    x, y = np.asarray(steps)[kept], values[kept]
    _trace(fig, x, y, label, colour, width, dash, group, meta=run, hovertemplate=words, **settings)


def _trace(fig, x, y, label, colour, width, dash, group, **settings):
    line = {"color": colour, "width": width, "dash": dash}
    fig.add_scatter(x=x, y=y, name=plain(label, 60), mode="lines", line=line, legendgroup=group, **settings)


def _references(reference: pd.DataFrame | None, until) -> list[tuple[str, pd.DataFrame]]:
    if reference is None:
        return []
    within = reference[reference["step"] <= until]
    return [(label, rows) for label, rows in within.groupby("label", sort=False)]


def _ends(rows: pd.DataFrame) -> str:
    by_step = rows.groupby("step")["value"].mean()
    return f"{by_step.iloc[0]:.3g} → {by_step.iloc[-1]:.3g}"
