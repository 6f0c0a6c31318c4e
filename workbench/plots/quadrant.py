"""Probability × advantage of a step's tokens: density, quadrants, and points to brush."""

import numpy as np
import plotly.graph_objects as go

from workbench.plots.describe import describe
from workbench.plots.theme import OKABE_ITO, TEXT, axis, figure, panel_title

SAMPLE = 2000
"""Points drawn over the density; a brush selects by its range, over all tokens."""
LOW_BITS, BINS = -14.0, (56, 36)


def quadrants(probability, advantage, step: int, colour=None, label: str = "entropy, nats") -> go.Figure:
    """Tokens by log2 probability [N] (before the step) and advantage [N]; `colour` [N] colours a sample of points.

    The density counts all tokens on a logarithmic scale. The sample is every k-th token. Drag to select; the range of
    the selection, not the points in it, decides which tokens are meant.
    """
    x = log_probability(probability)
    y = np.asarray(advantage, dtype=float)
    fig = figure(430, dragmode="select", hovermode="closest", showlegend=False)
    edges_y = _symmetric(y)
    counts, edges_x, edges_y = np.histogram2d(
        np.clip(x, LOW_BITS, 0), y, bins=BINS, range=[[LOW_BITS, 0.0], [-edges_y, edges_y]]
    )
    fig.add_heatmap(
        x=(edges_x[1:] + edges_x[:-1]) / 2,
        y=(edges_y[1:] + edges_y[:-1]) / 2,
        z=np.where(counts > 0, np.log10(np.maximum(counts, 1)), np.nan).T,
        customdata=counts.T,
        colorscale=[[0, "rgba(120,120,120,0.10)"], [1, "rgba(120,120,120,0.85)"]],
        hovertemplate="%{customdata:,} tokens<extra></extra>",
        colorbar={"title": {"text": "tokens"}, "tickvals": [0, 1, 2, 3, 4, 5],
                  "ticktext": ["1", "10", "100", "1k", "10k", "100k"], "thickness": 10, "len": 0.9, "outlinewidth": 0},
    )  # fmt: skip
    kept = np.arange(0, len(x), max(1, -(-len(x) // SAMPLE)))
    shade = (
        {} if colour is None else {"color": np.asarray(colour, dtype=float)[kept], "colorscale": "Cividis", "cmin": 0}
    )
    fig.add_scatter(
        x=np.clip(x[kept], LOW_BITS, 0),
        y=y[kept],
        mode="markers",
        marker={"size": 5, "opacity": 0.75, "line": {"width": 0}} | (shade or {"color": OKABE_ITO[0]}),
        text=None if colour is None else np.asarray(colour, dtype=float)[kept],
        hovertemplate="probability 2^%{x:.2f}, A %{y:.2f}, " + label + " %{text:.3f}<extra></extra>",
        selected={"marker": {"opacity": 1}},
        unselected={"marker": {"opacity": 0.25}},
        name="tokens",
    )
    fig.add_hline(y=0, line={"color": TEXT, "width": 1})
    ticks = list(range(int(LOW_BITS), 1, 2))
    names = ["1" if t == 0 else f"1/{2**-t:,}" if t > LOW_BITS else f"≤ 1/{2**-t:,}" for t in ticks]
    fig.layout.xaxis = axis(title="probability of the token before the step", range=[LOW_BITS - 0.3, 0.3],
                            tickvals=ticks, ticktext=names)  # fmt: skip
    fig.layout.yaxis = axis(range=[-edges_y[-1] * 1.08, edges_y[-1] * 1.08], title="advantage")
    quantity = label.split(",")[0]
    fig.add_annotation(
        panel_title(
            f"Tokens of step {step}",
            f"{len(x):,} tokens, {len(kept):,} drawn as points, bright where {quantity} is high",
            y=1,
        )
    )
    shares = [float(np.mean(mask)) for mask in (y > 0, y < 0)]
    return describe(fig, f"Step {step}: {shares[0]:.0%} of {len(x):,} tokens have A > 0, {shares[1]:.0%} A < 0.")


def log_probability(probability) -> np.ndarray:
    """log2 of probabilities [N], as on the figure's x axis."""
    return np.log2(np.maximum(np.asarray(probability, dtype=float), 1e-30))


def inside(probability, advantage, xrange, yrange) -> np.ndarray:
    """Mask [N] of the tokens inside a selection of the figure; probabilities below its edge count as on the edge."""
    x, y = np.clip(log_probability(probability), LOW_BITS, 0), np.asarray(advantage, dtype=float)
    low_x, high_x = sorted(xrange)
    low_y, high_y = sorted(yrange)
    return (x >= low_x) & (x <= high_x) & (y >= low_y) & (y <= high_y)


def _symmetric(y: np.ndarray) -> float:
    finite = np.abs(y[np.isfinite(y)])
    return max(0.5, float(finite.max()) * 1.02) if len(finite) else 1.0
