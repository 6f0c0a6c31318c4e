"""Figures of a study: arms over training, beside what was published, scores over training, entropy against scores."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from workbench.metrics.series import ema
from workbench.plots.describe import describe
from workbench.plots.sampling import thin
from workbench.plots.theme import DASHES, OKABE_ITO, UNITS, axis, faint, figure, panel_title, step_axis

ROW_PIXELS = 20
"""Height of a row of the legend."""
SYMBOLS = ("circle", "square", "diamond", "cross", "triangle-up", "triangle-down", "star")
VERDICT_COLOURS = {"reproduced": "#009E73", "contradicted": "#D55E00", "inconclusive": "#999999", "not run": "#d5dae0"}


def arm_curves(metrics: pd.DataFrame, name: str = "entropy/mean") -> go.Figure:
    """One metric of every arm over rollout steps, smoothed (E = 0.4 H + 0.6 E): mean over seeds, and their range.

    `metrics`: arm, seed, step and the metric, as `Study.metrics` gives them. Raises ValueError when no run has it.
    """
    if name not in metrics or metrics[name].isna().all():
        raise ValueError(f"no finished run recorded {name!r}")
    title, unit = UNITS.get(name, (name, ""))
    fig, ends = _arms_figure(metrics["arm"].nunique(), title, unit), []
    for index, (arm, rows) in enumerate(metrics.groupby("arm", sort=False)):
        table = rows.pivot_table(index="step", columns="seed", values=name)
        smooth = table.apply(lambda column: pd.Series(ema(column.to_numpy()), index=column.index))
        _band(fig, smooth, arm, index)
        ends.append(f"{arm} {smooth.mean(axis=1).iloc[0]:.3g} → {smooth.mean(axis=1).iloc[-1]:.3g}")
    fig.update_layout(xaxis=step_axis(), yaxis=axis(rangemode="tozero"))
    return describe(fig, f"{title}, {unit}, smoothed, mean over seeds: {'; '.join(ends)}.")


def published_arms(curves: pd.DataFrame) -> go.Figure:
    """The published entropy curves of a study's arms (columns arm, step, value in nats), under the arms' names here."""
    fig, ends = _arms_figure(curves["arm"].nunique(), "Published entropy", "nats per token, smoothed"), []
    for index, (arm, rows) in enumerate(curves.groupby("arm", sort=False)):
        _line(fig, rows["step"], rows["value"], arm, index)
        ends.append(f"{arm} {rows['value'].iloc[0]:.3g} → {rows['value'].iloc[-1]:.3g}")
    fig.update_layout(xaxis=step_axis(), yaxis=axis(rangemode="tozero"))
    return describe(fig, f"Published entropy in nats per token: {'; '.join(ends)}.")


def against_published(metrics: pd.DataFrame, curves: pd.DataFrame) -> go.Figure:
    """Measured entropy (solid, mean over seeds) over published (dotted), both as shares: of the run, and of its first
    value, since length and level of the published runs differ. Arms without a published curve are left out."""
    fig, ends = _arms_figure(curves["arm"].nunique(), "Entropy over its first value", "share; dotted: published"), []
    for index, (arm, rows) in enumerate(curves.groupby("arm", sort=False)):
        share = (rows["step"] - rows["step"].min()) / max(rows["step"].max() - rows["step"].min(), 1)
        _line(fig, share, rows["value"] / rows["value"].iloc[0], f"{arm}, published", index, dash="dot", legend=False)
        own = metrics[metrics["arm"] == arm]
        if own.empty:
            continue
        mean = pd.Series(ema(own.groupby("step")["entropy/mean"].mean().to_numpy()))
        _line(fig, mean.index / max(len(mean) - 1, 1), mean / mean.iloc[0], arm, index, dash="solid")
        ends.append(f"{arm} {mean.iloc[-1] / mean.iloc[0]:.2f} (published {_last_share(rows):.2f})")
    fig.update_layout(xaxis=axis(title="share of the run"), yaxis=axis(rangemode="tozero"))
    return describe(fig, f"Entropy at the end over that at the start: {'; '.join(ends)}.")


def score_curves(scores: pd.DataFrame, measure: str) -> go.Figure:
    """One measure of the evaluations of every arm over training: mean over seeds, and their range.

    `scores`: arm, seed, step, measure, value, as `Study.scores` gives them. Raises ValueError when it is not there.
    """
    chosen = scores[scores["measure"] == measure]
    if chosen.empty:
        raise ValueError(f"no finished run was evaluated for {measure!r}")
    fig, ends = _arms_figure(chosen["arm"].nunique(), measure, "evaluation samples"), []
    for index, (arm, rows) in enumerate(chosen.groupby("arm", sort=False)):
        table = rows.pivot_table(index="step", columns="seed", values="value", dropna=False)
        _band(fig, table, arm, index, markers=True)
        ends.append(f"{arm} {table.mean(axis=1).iloc[0]:.3g} → {table.mean(axis=1).iloc[-1]:.3g}")
    fig.update_layout(xaxis=step_axis(), yaxis=axis())
    return describe(fig, f"{measure} of the evaluation samples, mean over seeds: {'; '.join(ends)}.")


def entropy_against(scores: pd.DataFrame, measure: str, frontier: bool = False) -> go.Figure:
    """A measure of the last evaluation against the entropy of its samples, one point per arm (mean over seeds, bars:
    their range). `frontier` joins the arms that no other beats in both (Pareto)."""
    last = scores[scores["step"] == scores.groupby(["arm", "seed"])["step"].transform("max")]
    wide = last.pivot_table(index=["arm", "seed"], columns="measure", values="value", sort=False)[["entropy", measure]]
    fig = _arms_figure(wide.index.get_level_values("arm").nunique(), measure, "at the end of training")
    points = wide.groupby("arm", sort=False).agg(["mean", "min", "max"])
    for index, (arm, row) in enumerate(points.iterrows()):
        (x, left, right), (y, low, high) = row["entropy"], row[measure]
        fig.add_scatter(
            x=[x], y=[y], name=arm, mode="markers",
            marker={"color": OKABE_ITO[index % 7], "symbol": SYMBOLS[(index // 7 + index) % 7], "size": 11},
            error_x={"array": [right - x], "arrayminus": [x - left], "thickness": 1, "width": 3},
            error_y={"array": [high - y], "arrayminus": [y - low], "thickness": 1, "width": 3},
        )  # fmt: skip
    if frontier:
        best = pareto(points["entropy"]["mean"].to_numpy(), points[measure]["mean"].to_numpy())
        front = points.iloc[best]
        style = {"color": "#999999", "width": 1, "dash": "dot"}
        fig.add_scatter(
            x=front["entropy"]["mean"], y=front[measure]["mean"], mode="lines", line=style, name="best trade"
        )
    fig.update_layout(xaxis=axis(title="entropy, nats per token"), yaxis=axis())
    said = [f"{arm} {row['entropy']['mean']:.3f}, {row[measure]['mean']:.3f}" for arm, row in points.iterrows()]
    return describe(fig, f"Entropy (nats) and {measure} at the end of training: {'; '.join(said)}.")


def pareto(x: np.ndarray, y: np.ndarray) -> list[int]:
    """Indices of the points that no other exceeds in both x and y, by x."""
    keep = [i for i in range(len(x)) if not ((x >= x[i]) & (y >= y[i]) & ((x > x[i]) | (y > y[i]))).any()]
    return sorted(keep, key=lambda i: x[i])


def verdicts(table: pd.DataFrame) -> go.Figure:
    """Claims by study and verdict, as bars; `table` as `Claims.table` has it."""
    studies = table["claim"].str.partition("/")[0]
    counts = pd.crosstab(studies, table["verdict"])
    fig = figure(max(260, 26 * len(counts) + 110), barmode="stack", margin_t=72)
    fig.add_annotation(panel_title("Verdicts", "claims by study", y=1))
    for verdict, colour in VERDICT_COLOURS.items():
        if verdict in counts:
            fig.add_bar(x=counts[verdict], y=list(counts.index), name=verdict, orientation="h", marker_color=colour)
    fig.update_layout(xaxis=axis(title="claims", dtick=1), yaxis=axis(autorange="reversed"))
    fig.layout.legend.y = 1 + 28 / fig.layout.height
    total = ", ".join(f"{(table['verdict'] == verdict).sum()} {verdict}" for verdict in VERDICT_COLOURS)
    return describe(fig, f"{len(table)} claims: {total}.")


def _arms_figure(arms: int, title: str, unit: str) -> go.Figure:
    """An empty figure with its legend below, where many arms find room."""
    rows = -(-arms // 4)
    fig = figure(380 + ROW_PIXELS * rows, hovermode="closest")
    fig.layout.legend = {"orientation": "h", "x": 0, "xanchor": "left", "y": -60 / 330, "yanchor": "top"}
    fig.layout.margin.b = 70 + ROW_PIXELS * rows
    fig.add_annotation(panel_title(title, unit, y=1))
    return fig


def _band(fig: go.Figure, table: pd.DataFrame, arm: str, index: int, markers: bool = False) -> None:
    """The mean of table [steps, seeds] as a line, its range as a band when there are several seeds."""
    steps = table.index.to_numpy()
    if table.shape[1] > 1:
        low, high = table.min(axis=1), table.max(axis=1)
        fig.add_scatter(
            x=np.concatenate([steps, steps[::-1]]), y=np.concatenate([high, low[::-1]]), fill="toself", mode="none",
            fillcolor=faint(OKABE_ITO[index % 7], 0.16), hoverinfo="skip", showlegend=False, legendgroup=arm,
        )  # fmt: skip
    _line(fig, steps, table.mean(axis=1), arm, index, markers=markers)


def _line(
    fig: go.Figure, x, y, name: str, index: int, dash: str = "", markers: bool = False, legend: bool = True
) -> None:
    values = np.asarray(y, dtype=float)
    kept = thin(values)
    style = {"color": OKABE_ITO[index % 7], "width": 2, "dash": dash or DASHES[(index // 7) % 7]}
    fig.add_scatter(
        x=np.asarray(x)[kept], y=values[kept], name=name, mode="lines+markers" if markers else "lines", line=style,
        legendgroup=name.removesuffix(", published"), showlegend=legend,
        hovertemplate=f"{name}: %{{y:.4g}}<extra></extra>",
    )  # fmt: skip


def _last_share(rows: pd.DataFrame) -> float:
    return rows["value"].iloc[-1] / rows["value"].iloc[0]
