"""A small drawing of a figure's curves for the index of reports: an SVG, so that no browser is needed to make it."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go

from workbench.plots.describe import trace_numbers
from workbench.plots.theme import OKABE_ITO

WIDTH, HEIGHT, CURVES, POINTS = 168, 64, 7, 60


def thumbnail(plotly_json: dict) -> str:
    """SVG of the curves of a figure as stored in a notebook; "" for a figure without curves."""
    fig = go.Figure({key: plotly_json[key] for key in ("data", "layout")})
    curves = [trace for trace in fig.data if trace.type == "scatter" and trace.yaxis in (None, "y")]
    series = [(trace_numbers(t.x), trace_numbers(t.y), t.line.color or t.marker.color) for t in curves]
    series = [(x.astype(float), y.astype(float), colour) for x, y, colour in series if _drawable(x, y)][-CURVES:]
    if not series:
        return ""
    xs, ys = (np.concatenate([part[axis] for part in series]) for axis in (0, 1))
    box = [float(f(values)) for values in (xs, ys) for f in (np.nanmin, np.nanmax)]
    lines = "".join(_line(*part, OKABE_ITO[i % len(OKABE_ITO)], box) for i, part in enumerate(series))
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" aria-hidden="true">{lines}</svg>'


def _drawable(x: np.ndarray, y: np.ndarray) -> bool:
    return len(x) > 1 and len(x) == len(y) and x.dtype.kind in "fiu" and y.dtype.kind in "fiu" and np.isfinite(y).any()


def _line(x: np.ndarray, y: np.ndarray, colour, fallback: str, box: list[float]) -> str:
    kept = np.unique(np.linspace(0, len(x) - 1, POINTS).astype(int))
    left, right, low, high = box
    across = 2 + (WIDTH - 4) * (x[kept] - left) / ((right - left) or 1)
    up = HEIGHT - 2 - (HEIGHT - 4) * (y[kept] - low) / ((high - low) or 1)
    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(across, up, strict=True) if np.isfinite(b))
    stroke = colour if isinstance(colour, str) and colour.startswith("#") and len(colour) == 7 else fallback
    return f'<polyline points="{points}" fill="none" stroke="{stroke}" stroke-width="1.4"/>'
