"""Curves with the steps at which something happens to them: two groups part, or a run heads for collapse."""

import numpy as np
import plotly.graph_objects as go

from workbench.metrics.collapse import CollapseWarning
from workbench.metrics.separation import Separation
from workbench.metrics.series import ema
from workbench.plots.describe import describe
from workbench.plots.text import plain
from workbench.plots.theme import OKABE_ITO, TEXT, UNITS, axis, faint, figure, panel_title, step_axis


def parting(found: Separation, steps, names: tuple[str, str], metric: str) -> go.Figure:
    """Bands of two groups over `steps` [n] and the first step from which they stay apart."""
    fig = figure(340, hovermode="x unified", margin_t=56)
    steps = np.asarray(steps)[: len(found.bands[0][0])]
    for (low, high), name, colour, dash in zip(found.bands, names, OKABE_ITO, ("solid", "dash"), strict=False):
        fig.add_scatter(
            x=np.concatenate([steps, steps[::-1]]), y=np.concatenate([high, low[::-1]]), fill="toself", mode="lines",
            fillcolor=faint(colour, 0.22), line={"width": 0}, hoverinfo="skip", showlegend=False,
            name=f"{plain(name, 60)}, band",
        )  # fmt: skip
        middle = (low + high) / 2
        line = {"color": colour, "dash": dash, "width": 2.2}
        fig.add_scatter(x=steps, y=middle, mode="lines", name=plain(name, 60), line=line, hovertemplate="%{y:.4g}")
    label, unit = UNITS.get(metric, (metric, ""))
    fig.update_layout(xaxis=step_axis(), yaxis=axis())
    fig.add_annotation(panel_title(label, f"{unit}; bands: {found.basis}", y=1))
    words = "their bands never part for good"
    if found.at is not None:
        words = f"their bands stay apart from step {steps[found.at]} on"
        _mark(fig, steps[found.at], f"apart from step {steps[found.at]}")
    return describe(fig, f"{label} of {names[0]} and {names[1]}: {words} ({found.basis}).")


def warned(entropy, steps, found: CollapseWarning, run: str) -> go.Figure:
    """Entropy of a run with the bound of collapse, the warning and the collapse."""
    values, steps = np.asarray(entropy, dtype=float), np.asarray(steps)
    fig = figure(340, hovermode="x unified", margin_t=56)
    for y, name, colour, width in (
        (values, "entropy, raw", faint(OKABE_ITO[0], 0.4), 1),
        (ema(values), "entropy, EMA 0.6", OKABE_ITO[0], 2.4),
    ):
        line = {"color": colour, "width": width}
        fig.add_scatter(x=steps, y=y, mode="lines", name=name, line=line, hovertemplate="%{y:.4f}")
    if np.isfinite(found.bound):
        fig.add_hline(y=found.bound, line={"dash": "dot", "color": TEXT, "width": 1.2})
        fig.add_annotation(
            x=0, xref="paper", y=found.bound, text="collapse below", showarrow=False, xanchor="left", yanchor="bottom"
        )
    words = []
    for place, what in ((found.warned, "warning"), (found.collapsed, "collapse")):
        if place is not None:
            _mark(fig, steps[place], f"{what}, step {steps[place]}", high=what == "warning")
            words.append(f"{what} at step {steps[place]}")
    fig.update_layout(xaxis=step_axis(), yaxis=axis(rangemode="tozero"))
    fig.add_annotation(panel_title("Entropy", f"nats per token, {plain(run, 60)}", y=1))
    return describe(fig, f"Run {run}: {', '.join(words) or 'no warning and no collapse'}.", run=run, select="step")


def _mark(fig, step, words, high=True):
    fig.add_vline(x=float(step), line={"color": OKABE_ITO[1], "width": 1.6, "dash": "solid" if high else "dash"})
    fig.add_annotation(x=float(step), y=1 if high else 0.86, yref="paper", text=words, showarrow=False, xanchor="left",
                       yanchor="top", xshift=4, font={"color": TEXT})  # fmt: skip
