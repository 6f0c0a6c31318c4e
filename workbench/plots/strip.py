"""The film-strip: one probe response scored at every checkpoint; rows are checkpoints, columns tokens."""

import numpy as np
import plotly.graph_objects as go

from workbench.plots.describe import describe
from workbench.plots.text import plain
from workbench.plots.theme import ENTROPY_SCALE, TEXT, axis, figure, panel_title


def film_strip(entropy, steps, pieces, forks: dict[int, str], ceiling: float, prompt: str = "") -> go.Figure:
    """Entropy [checkpoints, tokens] nats of one response under teacher forcing.

    `steps`: step of each row. `pieces`: text of each token. `forks`: column -> "dies", "appears" or "stays", marked
    above it. `ceiling`: upper end of the colour scale, shared by all strips that are compared.
    """
    z = np.asarray(entropy, dtype=float)
    columns = list(range(z.shape[1]))
    fig = figure(90 + 26 * max(5, len(steps)), showlegend=True)
    labels = [plain(piece, 14) for piece in pieces]
    fig.add_heatmap(
        x=columns,
        y=[str(step) for step in steps],
        z=z,
        text=[labels] * len(steps),
        colorscale=ENTROPY_SCALE,
        zmin=0,
        zmax=ceiling,
        xgap=1,
        ygap=1,
        hovertemplate="step %{y}, token %{x} “%{text}”: %{z:.3f} nats<extra></extra>",
        colorbar={"title": {"text": "nats"}, "thickness": 10, "len": 1, "outlinewidth": 0},
        showlegend=False,
    )
    for kind, symbol in (("dies", "triangle-down"), ("appears", "triangle-up"), ("stays", "circle-open")):
        at = [column for column, what in forks.items() if what == kind]
        if at:
            fig.add_scatter(
                x=at, y=[1] * len(at), yaxis="y2", mode="markers", name=f"fork {kind}",
                marker={"symbol": symbol, "size": 11, "color": TEXT, "line": {"width": 1.5, "color": TEXT}},
                hovertemplate=f"fork {kind}<extra></extra>", cliponaxis=False,
            )  # fmt: skip
    fig.layout.xaxis = axis(tickvals=columns, ticktext=labels, tickangle=0, anchor="y", showgrid=False, ticks="")
    fig.layout.xaxis.tickfont = {"size": 12, "family": "ui-monospace, Menlo, Consolas, monospace"}
    fig.layout.yaxis = axis(title="after step", type="category", autorange="reversed", domain=[0, 0.9], showgrid=False)
    fig.layout.yaxis2 = {"domain": [0.91, 1], "range": [0, 2], "visible": False}
    fig.layout.legend = {"orientation": "h", "x": 1, "xanchor": "right", "y": 1.02, "yanchor": "bottom"}
    fig.add_annotation(panel_title("Entropy under teacher forcing", plain(prompt, 60), y=1.02))
    means = z.mean(axis=1)
    words = f"Mean entropy of the probe {means[0]:.3f} → {means[-1]:.3f} nats over {len(steps)} checkpoints"
    died = sum(kind == "dies" for kind in forks.values())
    return describe(fig, f"{words}; of {len(forks)} forks {died} die.")
