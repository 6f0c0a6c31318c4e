"""Figures over the rollout steps of one run: the headline curves, entropy by sign of the advantage, any one metric."""

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from workbench.metrics.series import ema
from workbench.plots.describe import describe
from workbench.plots.sampling import thin
from workbench.plots.theme import OKABE_ITO, REFERENCE, UNITS, axis, faint, figure, panel_title, step_axis

# Panels from top to bottom: the metrics drawn in it and its share of the height. Entropy is the headline.
PANELS = (
    (("entropy/mean",), 0.46),
    (("reward/mean",), 0.18),
    (("length/mean",), 0.18),
    (("clip/low_fraction", "clip/high_fraction"), 0.18),
)
PANEL_GAP = 0.075
PIXELS = 760


def training_curves(metrics: pd.DataFrame, reference: pd.DataFrame | None = None, run: str | None = None) -> go.Figure:
    """Entropy with reward, response length and clip fractions below it, all over the same rollout steps.

    `metrics`: one row per rollout step with `step` and any of `entropy/mean` (nats), `reward/mean`, `length/mean`
    (tokens), `clip/low_fraction`, `clip/high_fraction`; panels without data are left out, and the sentence below the
    figure says that they were not recorded. `reference`: a published curve (`step`, `value` in nats, `label`) drawn
    dotted in the entropy panel. `run`: the run's id, so that a click on a point selects its step in that run's token
    view. Raises ValueError when no known metric is present.
    """
    recorded = {name for name in metrics if metrics[name].notna().any()}
    panels = [(present, share) for names, share in PANELS if (present := [n for n in names if n in recorded])]
    if not panels:
        raise ValueError(f"metrics has none of the columns {', '.join(n for names, _ in PANELS for n in names)}.")
    steps = metrics["step"].to_numpy()
    fig = figure(_height(panels), hovermode="x unified", hoversubplots="axis", margin_t=72)
    fig.layout.legend.y = 1 + 28 / fig.layout.height
    for row, (names, low, high) in enumerate(_domains(panels)):
        y = "y" if row == 0 else f"y{row + 1}"
        if len(names) > 1:  # a panel with several curves has its own legend, above it
            fig.layout.legend2 = fig.layout.legend.to_plotly_json() | {"y": high}
        title, unit = UNITS[names[0]] if len(names) == 1 else ("Clipped tokens", "fraction")
        fig.add_annotation(panel_title(title, unit, y=high))
        fig.layout[y.replace("y", "yaxis")] = axis(domain=[low, high], anchor="x", rangemode=_range_mode(names))
        for index, name in enumerate(names):
            _add_curve(fig, steps, metrics[name], name, OKABE_ITO[index], y, raw=name == "entropy/mean")
    if reference is not None and "entropy/mean" in metrics:
        _add_reference(fig, reference, until=float(steps.max()))
    lowest = "y" if len(panels) == 1 else f"y{len(panels)}"
    fig.layout.xaxis = step_axis(anchor=lowest, showspikes=True, spikemode="across", spikethickness=1)
    return describe(fig, _training_summary(metrics), run=run, select="step", drawn=len(thin(steps)), total=len(steps))


def entropy_by_sign(metrics: pd.DataFrame, run: str | None = None) -> go.Figure:
    """Entropy (nats) of tokens with positive and with negative advantage over rollout steps, raw and smoothed.

    `metrics`: `step`, `entropy/positive`, `entropy/negative`. Raises ValueError naming a missing column.
    """
    names = ("entropy/positive", "entropy/negative")
    missing = [name for name in names if name not in metrics]
    if missing:
        raise ValueError(f"metrics lacks {', '.join(missing)}; entropy_by_sign needs both signs.")
    steps = metrics["step"].to_numpy()
    fig = figure(340, hovermode="x unified")
    fig.add_annotation(panel_title("Entropy by sign of the advantage", "nats per token", y=1))
    for index, name in enumerate(names):
        _add_curve(fig, steps, metrics[name], name, OKABE_ITO[index], "y", raw=True)
    fig.update_layout(xaxis=step_axis(), yaxis=axis(rangemode="tozero"))
    ends = [f"{UNITS[name][0]}: {_from_to(ema(metrics[name]))}" for name in names]
    summary = f"Entropy in nats per token by sign of the advantage, smoothed: {'; '.join(ends)}."
    return describe(fig, summary, run=run, select="step", drawn=len(thin(steps)), total=len(steps))


def metric_curve(metrics: pd.DataFrame, name: str, run: str | None = None) -> go.Figure:
    """One metric over rollout steps, raw and smoothed: `name`, a column of `metrics`. Raises ValueError without it."""
    if name not in metrics:
        raise ValueError(f"metrics has no column {name!r}; it has {', '.join(metrics.columns)}.")
    label, unit = UNITS.get(name, (name, ""))
    steps = metrics["step"].to_numpy()
    fig = figure(300, hovermode="x unified", margin_t=72)
    fig.layout.legend.y = 1 + 28 / fig.layout.height
    fig.add_annotation(panel_title(label, unit, y=1))
    _add_curve(fig, steps, metrics[name], name, OKABE_ITO[0], "y", raw=True)
    fig.update_layout(xaxis=step_axis(), yaxis=axis(rangemode="tozero"))
    summary = f"{label}, {unit}, smoothed: {_from_to(ema(metrics[name]))}."
    return describe(fig, summary, run=run, select="step", drawn=len(thin(steps)), total=len(steps))


def published_entropy(curves: pd.DataFrame) -> go.Figure:
    """Published entropy curves (`step`, `value` in nats, `label`), each raw and smoothed with phi = 0.6."""
    fig = figure(300, hovermode="x unified")
    fig.add_annotation(panel_title("Published entropy", "nats per token", y=1))
    ends = []
    for index, (label, curve) in enumerate(curves.groupby("label", sort=False)):
        smooth = ema(curve["value"])
        colour = OKABE_ITO[index % len(OKABE_ITO)]
        _add_line(fig, curve["step"], curve["value"], f"{label}, raw", faint(colour, 0.45), "y", width=1)
        _add_line(fig, curve["step"], smooth, label, colour, "y", width=2.5)
        ends.append(f"{label}: {_from_to(smooth)} in {int(curve['step'].max())} steps")
    fig.update_layout(xaxis=step_axis(), yaxis=axis(rangemode="tozero"), margin_t=72)
    fig.layout.legend.y = 1 + 28 / fig.layout.height
    return describe(fig, f"Published entropy in nats per token. {'; '.join(ends)}.", run=None, select=None)


def _height(panels) -> int:
    return max(320, round(PIXELS * sum(share for _, share in panels)))


def _domains(panels):
    """Yield (names, low, high) of each panel in paper coordinates, top first."""
    total = sum(share for _, share in panels)
    free = 1 - PANEL_GAP * (len(panels) - 1)
    top = 1.0
    for names, share in panels:
        low = max(0.0, top - free * share / total)
        yield names, low, top
        top = low - PANEL_GAP


def _range_mode(names) -> str:
    return "normal" if names == ["length/mean"] else "tozero"


def _add_curve(fig, steps, values, name, colour, y, raw):
    """One metric; `raw` metrics are noisy: drawn faint, with their smoothed curve on top."""
    values = np.asarray(values, dtype=float)
    label = UNITS.get(name, (name, ""))[0]
    dash = "dash" if name in ("entropy/negative", "clip/high_fraction") else "solid"
    if raw:
        _add_line(fig, steps, values, f"{label}, raw", faint(colour, 0.45), y, width=1)
        _add_line(fig, steps, ema(values), f"{label}, EMA 0.6", colour, y, width=2.5, dash=dash)
        return
    _add_line(fig, steps, values, label, colour, y, width=1.8, dash=dash)


def _add_line(fig, steps, values, label, colour, y, width, dash="solid"):
    values = np.asarray(values, dtype=float)
    kept = thin(values)
    fig.add_scatter(
        x=np.asarray(steps)[kept],
        y=values[kept],
        name=label,
        mode="lines+markers" if _stand_alone(values) else "lines",
        marker={"size": 5, "color": colour},
        line={"color": colour, "width": width, "dash": dash},
        yaxis=y,
        hovertemplate="%{y:.4g}",
        showlegend=y == "y" or "clipped" in label,
        legend="legend2" if "clipped" in label else "legend",
    )


def _stand_alone(values: np.ndarray) -> bool:
    """Whether a value stands between two that are missing, where a line alone would not show it."""
    known = np.isfinite(np.concatenate([[np.nan], values, [np.nan]]))
    return bool((known[1:-1] & ~known[:-2] & ~known[2:]).any())


def _add_reference(fig, reference, until):
    """Draw the published curve over the run's own steps only: a longer one would squeeze the run into a corner."""
    label = reference["label"].iloc[0]
    within = reference[reference["step"] <= until]
    _add_line(fig, within["step"], ema(within["value"]), label, REFERENCE, "y", width=2, dash="dot")


def _from_to(values) -> str:
    finite = np.asarray(values, dtype=float)
    finite = finite[~np.isnan(finite)]
    return f"{finite[0]:.3g} → {finite[-1]:.3g}" if len(finite) else "no data"


def _training_summary(metrics) -> str:
    parts, missing = [], []
    for name, words in (
        ("entropy/mean", "entropy (smoothed) {} nats per token"),
        ("reward/mean", "reward {}"),
        ("length/mean", "response length {} tokens"),
        ("clip/low_fraction", "fraction clipped low {}"),
        ("clip/high_fraction", "fraction clipped high {}"),
    ):
        if name in metrics and metrics[name].notna().any():
            values = ema(metrics[name]) if name == "entropy/mean" else metrics[name]
            parts.append(words.format(_from_to(values)))
        else:
            missing.append(words.partition(" {}")[0].removesuffix(" (smoothed)"))
    absent = f" Not recorded: {', '.join(missing)}." if missing else ""
    return f"Rollout steps {metrics['step'].min()} to {metrics['step'].max()}: {'; '.join(parts)}.{absent}"
