"""What goes with what in a study: measures within runs, the parts of a change, entropy along a response."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from workbench.metrics.statistics import spearman
from workbench.plots.describe import describe
from workbench.plots.panels import add_line, mark, on, panels, recorded, told, x_of, y_of
from workbench.plots.theme import OKABE_ITO, REFERENCE, axis, figure, panel_title, title_of

FIRST, LAST = 1, 10
"""Steps whose mean stands for the start and the end of a run."""
BAR_PIXELS = 30


def scores_together(scores: pd.DataFrame, x: str, *measures: str) -> go.Figure:
    """Measures of the evaluations against measure `x` of the same evaluations, one panel each and one point per
    evaluation, with Spearman's ρ within runs (mean over runs).

    `scores`: arm, seed, step, measure, value, as `Study.scores` gives them.
    """
    wide = scores.pivot_table(index=["arm", "seed", "step"], columns="measure", values="value", sort=False)
    return _together(wide.reset_index(), x, measures, "evaluations")


def metrics_together(metrics: pd.DataFrame, x: str, *names: str) -> go.Figure:
    """Metrics of the steps against metric `x` of the same steps, one panel each and one point per step, with Spearman's
    ρ within runs (mean over runs). `metrics`: arm, seed, step and the metrics, as `Study.metrics` gives them;
    a leading minus turns a metric's sign."""
    return _together(recorded(metrics, (x, *names)), x, names, "steps")


def changes_by_part(metrics: pd.DataFrame, *parts: str) -> go.Figure:
    """Where entropy went: the measured ΔH of all steps, added up, by the part of the tokens it comes from, one bar per
    arm (mean over seeds) and beside it the sum.

    `metrics`: arm, seed and `change/<part>` (nats; the parts add up to `change/entropy`). Raises ValueError when no run
    recorded a part.
    """
    names = [f"change/{part}" for part in parts]
    sums = recorded(metrics, names).groupby(["arm", "seed"], sort=False)[names].sum().groupby("arm", sort=False).mean()
    fig = figure(100 + BAR_PIXELS * len(sums) + 60, barmode="relative", hovermode="closest", margin_t=72)
    fig.add_annotation(panel_title("Entropy gained and lost", "nats, measured ΔH of all steps", y=1))
    for index, (part, name) in enumerate(zip(parts, names, strict=True)):
        fig.add_bar(
            x=sums[name], y=list(sums.index), orientation="h", name=part.replace("_", " "),
            marker_color=OKABE_ITO[index % 7], hovertemplate=f"%{{y}}, {part}: %{{x:+.3f}} nats<extra></extra>",
        )  # fmt: skip
    total = sums.sum(axis=1)
    fig.add_scatter(
        x=total, y=list(sums.index), mode="markers", name="sum", hovertemplate="%{y}: %{x:+.3f} nats<extra></extra>",
        marker={"symbol": "diamond", "size": 9, "color": "#ffffff", "line": {"width": 2, "color": "#555555"}},
    )  # fmt: skip
    fig.update_layout(xaxis=axis(zeroline=True, zerolinecolor=REFERENCE), yaxis=axis(autorange="reversed"))
    fig.layout.legend.y = 1 + 28 / fig.layout.height
    said = [f"{arm} {total[arm]:+.3f} ({_named(parts, row)})" for arm, row in sums.iterrows()]
    return describe(fig, f"Measured change of entropy over all steps, nats: {told(said)}.")


def entropy_by_position(metrics: pd.DataFrame) -> go.Figure:
    """Entropy (nats) along the response, by tenths of its length: of every arm over the last ten steps (mean over
    seeds), and of the first arm in the first step, dotted. `metrics`: arm, seed, step, `entropy/decile_0` … `_9`."""
    names = [f"entropy/decile_{tenth}" for tenth in range(10)]
    arms = list(dict.fromkeys(metrics["arm"]))
    fig, ends = panels([("Entropy along the response", "nats per token; dotted: before training")], arms), []
    middle = (np.arange(10) + 0.5) / 10
    first = metrics[(metrics["arm"] == arms[0]) & (metrics["step"] <= FIRST)][names].mean()
    add_line(fig, middle, first, "before training", arms.index(arms[0]), dash="dot", legend=False)
    for index, (arm, rows) in enumerate(metrics.groupby("arm", sort=False)):
        values = rows[rows["step"] > rows["step"].max() - LAST][names].mean()
        add_line(fig, middle, values, arm, index, markers=True)
        ends.append(f"{arm} {values.iloc[0]:.3f} in the first tenth, {values.iloc[-1]:.3f} in the last")
    fig.update_layout(xaxis=axis(title="position over length of the response"), yaxis={"rangemode": "tozero"})
    return describe(fig, f"Entropy in nats by position, last {LAST} steps: {told(ends)}.")


def _together(wide: pd.DataFrame, x: str, names: Sequence[str], what: str) -> go.Figure:
    """One panel per name of `names` over `x`, columns of `wide` [arm, seed, …]."""
    rhos = [_rho_by_arm(wide, x, name) for name in names]
    arms = list(dict.fromkeys(wide["arm"]))
    titles = [(title_of(n)[0], f"ρ over {what} {rho.mean():+.2f}") for n, rho in zip(names, rhos, strict=True)]
    fig, said = panels(titles, arms), []
    for panel, (name, rho) in enumerate(zip(names, rhos, strict=True)):
        for index, (arm, rows) in enumerate(wide.groupby("arm", sort=False)):
            fig.add_scatter(
                x=rows[x], y=rows[name], mode="markers", marker=mark(index, 6) | {"opacity": 0.6}, legendgroup=arm,
                name=f"{arm}: {title_of(name)[0]}" if panel else arm, showlegend=panel == 0,
                hovertemplate=f"{arm}: %{{x:.4g}}, %{{y:.4g}}<extra></extra>", **on(panel),
            )  # fmt: skip
        fig.layout[x_of(panel)].title.text = ", ".join(filter(None, title_of(x)))
        signed = bool((wide[name] < 0).any() and (wide[name] > 0).any())
        fig.layout[y_of(panel)].update(zeroline=signed, zerolinecolor=REFERENCE)
        said.append(f"{title_of(name)[0]}: {told([f'{arm} {value:+.2f}' for arm, value in rho.items()], len(names))}")
    return describe(fig, f"Spearman's ρ with {title_of(x)[0]} within runs. {'. '.join(said)}.")


def _named(parts: Sequence[str], row: pd.Series) -> str:
    return ", ".join(f"{part} {value:+.3f}" for part, value in zip(parts, row, strict=True))


def _rho_by_arm(wide: pd.DataFrame, x: str, y: str) -> pd.Series:
    """Spearman's ρ of two columns within each run, mean over an arm's runs."""
    rows = [(arm, spearman(run[x], run[y])) for (arm, _), run in wide.groupby(["arm", "seed"], sort=False)]
    return pd.DataFrame(rows, columns=["arm", "rho"]).groupby("arm", sort=False)["rho"].mean()
