"""Figures of a study: arms over training, beside what was published, scores over training, entropy against scores."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from workbench.metrics.series import ema
from workbench.metrics.statistics import spearman
from workbench.plots.describe import describe
from workbench.plots.panels import absent, add_band, add_line, mark, on, panels, recorded, told, x_of, y_of
from workbench.plots.theme import REFERENCE, axis, figure, panel_title, step_axis, title_of

VERDICT_COLOURS = {"reproduced": "#009E73", "contradicted": "#D55E00", "inconclusive": "#999999", "not run": "#d5dae0"}
ENTROPY = "entropy/mean"


def arm_curves(metrics: pd.DataFrame, *names: str, targets: Mapping[str, float] | None = None) -> go.Figure:
    """Metrics (by default the entropy) of every arm over rollout steps, one panel each, smoothed (E = 0.4 H + 0.6 E):
    mean over seeds, and their range.

    `metrics`: arm, seed, step and the metrics, as `Study.metrics` gives them. `targets`: arm -> the entropy it is to
    hold, dotted in the first panel. A leading minus turns a metric's sign. Arms that did not record a metric are left
    out of its panel; raises ValueError when no arm recorded any.
    """
    names = names or (ENTROPY,)
    metrics = recorded(metrics, names)
    arms = list(dict.fromkeys(metrics["arm"]))
    drawn = metrics.loc[metrics[list(names)].notna().any(axis=1), "arm"]
    fig, said = panels([title_of(name) for name in names], list(dict.fromkeys(drawn))), []
    for panel, name in enumerate(names):
        title, unit = title_of(name)
        ends = []
        for arm, smooth in _smoothed(metrics, name):
            add_band(fig, smooth, arm, arms.index(arm), panel, title)
            ends.append(f"{arm} {_from_to(smooth.mean(axis=1))}")
        fig.update_layout({x_of(panel): step_axis(), y_of(panel): {"rangemode": _range_mode(metrics[name])}})
        if not ends:
            absent(fig, panel)
        said.append(f"{title}{f', {unit}' if unit else ''}: {told(ends, len(names)) or 'not recorded'}")
    for arm, target in (targets or {}).items():
        if arm in arms:
            _target(fig, metrics["step"], arm, target, arms.index(arm))
    return describe(fig, f"Smoothed, mean over seeds. {'. '.join(said)}.")


def published_arms(curves: pd.DataFrame, title: str = "Published entropy") -> go.Figure:
    """The published curves of a study's arms (columns arm, step, value, unit), under the arms' names here."""
    arms, unit = list(dict.fromkeys(curves["arm"])), curves["unit"].iloc[0]
    fig, ends = panels([(title, unit)], arms), []
    for index, (arm, rows) in enumerate(curves.groupby("arm", sort=False)):
        add_line(fig, rows["step"], rows["value"], arm, index)
        ends.append(f"{arm} {_from_to(rows['value'])}")
    fig.update_layout(xaxis=step_axis(), yaxis={"rangemode": "tozero"})
    return describe(fig, f"{title}, {unit}: {told(ends)}.")


def against_published(metrics: pd.DataFrame, curves: pd.DataFrame, name: str = ENTROPY) -> go.Figure:
    """A measured metric (solid, mean over seeds, smoothed) over published curves of it (dotted), both as shares: of the
    run, and of its first value, since length and level of the published runs differ. Arms without a published curve are
    left out. `curves`: arm, step, value."""
    arms, title = list(dict.fromkeys(curves["arm"])), title_of(name)[0]
    fig, ends = panels([(f"{title} over its first value", "share; dotted: published")], arms), []
    for index, (arm, rows) in enumerate(curves.groupby("arm", sort=False)):
        share = (rows["step"] - rows["step"].min()) / max(rows["step"].max() - rows["step"].min(), 1)
        published, own = rows["value"] / rows["value"].iloc[0], metrics[metrics["arm"] == arm]
        add_line(fig, share, published, f"{arm}, published", index, dash="dot", legend=own.empty)
        if own.empty:
            continue
        mean = pd.Series(ema(own.groupby("step")[name].mean().to_numpy()))
        add_line(fig, mean.index / max(len(mean) - 1, 1), mean / mean.iloc[0], arm, index, dash="solid")
        ends.append(f"{arm} {mean.iloc[-1] / mean.iloc[0]:.2f} (published {published.iloc[-1]:.2f})")
    fig.update_layout(xaxis=axis(title="share of the run"), yaxis={"rangemode": "tozero"})
    return describe(fig, f"{title} at the end over that at the start: {told(ends)}.")


def score_curves(scores: pd.DataFrame, *measures: str) -> go.Figure:
    """Measures (by default all there are) of the evaluations of every arm over training, one panel each: mean over
    seeds, and their range.

    `scores`: arm, seed, step, measure, value, as `Study.scores` gives them. Raises ValueError for one that is missing.
    """
    measures = measures or tuple(dict.fromkeys(scores["measure"]))
    arms = list(dict.fromkeys(scores["arm"]))
    fig, said = panels([title_of(measure) for measure in measures], arms), []
    for panel, measure in enumerate(measures):
        chosen = scores[scores["measure"] == measure].dropna(subset="value")
        if chosen.empty:
            raise ValueError(f"no finished run was evaluated for {measure!r}")
        title, ends = title_of(measure)[0], []
        for arm, rows in chosen.groupby("arm", sort=False):
            table = rows.pivot_table(index="step", columns="seed", values="value")
            add_band(fig, table, arm, arms.index(arm), panel, title, markers=True)
            ends.append(f"{arm} {_from_to(table.mean(axis=1))}")
        fig.update_layout({x_of(panel): step_axis()})
        said.append(f"{title}: {told(ends, len(measures))}")
    return describe(fig, f"Evaluation samples, mean over seeds. {'. '.join(said)}.")


def score_by_rollouts(scores: pd.DataFrame, metrics: pd.DataFrame, *measures: str) -> go.Figure:
    """Measures of the evaluations of every arm over the responses sampled so far, those that were not trained on
    included, in multiples of a step's: mean over seeds. `scores` and `metrics` as `Study.scores` and `Study.metrics`
    give them."""
    costs = metrics[["arm", "seed", "step"]].assign(cost=metrics.get("sampling/groups_per_kept", 1.0)).fillna(1.0)
    costs["cost"] = costs.groupby(["arm", "seed"])["cost"].cumsum()
    table = scores.merge(costs, on=["arm", "seed", "step"], how="left").fillna({"cost": 0.0})
    arms = list(dict.fromkeys(table["arm"]))
    fig, said = panels([title_of(measure) for measure in measures], arms), []
    for panel, measure in enumerate(measures):
        title, ends = title_of(measure)[0], []
        for arm, rows in table[table["measure"] == measure].groupby("arm", sort=False):
            mean = rows.groupby("step")[["cost", "value"]].mean()
            add_line(fig, mean["cost"], mean["value"], arm, arms.index(arm), panel, title, markers=True)
            ends.append(f"{arm} {mean['value'].iloc[-1]:.3g} for {mean['cost'].iloc[-1]:.0f}")
        fig.layout[x_of(panel)].title.text = "responses sampled, in multiples of a step's"
        said.append(f"{title}: {told(ends, len(measures))}")
    return describe(fig, f"Score at the end, and responses sampled until then. {'. '.join(said)}.")


def entropy_against(scores: pd.DataFrame, *measures: str, frontier: bool = False) -> go.Figure:
    """Measures of the last evaluation against the entropy of its samples, one panel each and one point per arm (mean
    over seeds, bars: their range), with Spearman's ρ over the arms. Dotted: the least-squares line, or with `frontier`
    the arms that no other beats in both (Pareto).

    `scores`: arm, seed, step, measure, value with the measure entropy (nats), as `Study.scores` gives them.
    """
    last = scores[scores["step"] == scores.groupby(["arm", "seed"])["step"].transform("max")]
    wide = last.pivot_table(index=["arm", "seed"], columns="measure", values="value", sort=False)
    points = wide.groupby("arm", sort=False).agg(["mean", "min", "max"])
    titles = [(title_of(m)[0], f"ρ over arms {_rho(points, m)}") for m in measures]
    fig, said = panels(titles, list(points.index)), []
    for panel, measure in enumerate(measures):
        for index, (arm, row) in enumerate(points.iterrows()):
            _point(fig, row["entropy"], row[measure], arm, index, panel, measure)
        if len(points) > 2:
            _joining(fig, points, measure, panel, frontier)
        fig.layout[x_of(panel)].title.text = "entropy, nats per token"
        ends = [f"{arm} {row['entropy']['mean']:.3f}, {row[measure]['mean']:.3g}" for arm, row in points.iterrows()]
        said.append(f"{title_of(measure)[0]}, ρ {_rho(points, measure)}: {told(ends, len(measures))}")
    return describe(fig, f"Entropy (nats) and score at the end of training. {'. '.join(said)}.")


def pareto(x: np.ndarray, y: np.ndarray) -> list[int]:
    """Indices of the points that no other exceeds in both x and y, by x."""
    keep = [i for i in range(len(x)) if not ((x >= x[i]) & (y >= y[i]) & ((x > x[i]) | (y > y[i]))).any()]
    return sorted(keep, key=lambda i: x[i])


def verdicts(table: pd.DataFrame) -> go.Figure:
    """Claims by study and verdict, as bars; `table` as `Claims.table` has it."""
    studies = table["claim"].str.partition("/")[0]
    counts = pd.crosstab(studies, table["verdict"])
    fig = figure(max(260, 26 * len(counts) + 110), barmode="stack", margin_t=72, showlegend=True)
    fig.add_annotation(panel_title("Verdicts", "claims by study", y=1))
    for verdict, colour in VERDICT_COLOURS.items():
        if verdict in counts:
            fig.add_bar(x=counts[verdict], y=list(counts.index), name=verdict, orientation="h", marker_color=colour)
    fig.update_layout(xaxis=axis(title="claims", dtick=1), yaxis=axis(autorange="reversed"))
    fig.layout.legend.y = 1 + 28 / fig.layout.height
    total = ", ".join(f"{(table['verdict'] == verdict).sum()} {verdict}" for verdict in VERDICT_COLOURS)
    return describe(fig, f"{len(table)} claims: {total}.")


def _smoothed(metrics: pd.DataFrame, name: str):
    """Yield every arm that recorded metric `name` with its smoothed table [steps, seeds]."""
    for arm, rows in metrics.dropna(subset=name).groupby("arm", sort=False):
        table = rows.pivot_table(index="step", columns="seed", values=name)
        yield arm, table.apply(lambda column: pd.Series(ema(column.to_numpy()), index=column.index))


def _range_mode(values: pd.Series) -> str:
    """From zero where zero is the natural end; lengths, signed and large values by their own range."""
    return "tozero" if values.min() >= 0 and values.max() <= 3 else "normal"


def _target(fig: go.Figure, steps: pd.Series, arm: str, target: float, index: int) -> None:
    fig.add_scatter(
        x=[steps.min(), steps.max()], y=[target, target], name=f"{arm}, target", mode="lines", legendgroup=arm,
        line={"color": mark(index)["color"], "width": 1, "dash": "dot"}, showlegend=False,
        hovertemplate="target %{y:.3g}<extra></extra>",
    )  # fmt: skip


def _point(fig: go.Figure, x: pd.Series, y: pd.Series, arm: str, index: int, panel: int, measure: str) -> None:
    bars = {"thickness": 1, "width": 3}
    fig.add_scatter(
        x=[x["mean"]], y=[y["mean"]], mode="markers", marker=mark(index), legendgroup=arm, showlegend=panel == 0,
        name=f"{arm}: {title_of(measure)[0]}" if panel else arm,
        error_x={"array": [x["max"] - x["mean"]], "arrayminus": [x["mean"] - x["min"]]} | bars,
        error_y={"array": [y["max"] - y["mean"]], "arrayminus": [y["mean"] - y["min"]]} | bars,
        hovertemplate=f"{arm}: entropy %{{x:.3f}}, %{{y:.4g}}<extra></extra>", **on(panel),
    )  # fmt: skip


def _joining(fig: go.Figure, points: pd.DataFrame, measure: str, panel: int, frontier: bool) -> None:
    """The Pareto front, or the least-squares line, through the means of the arms."""
    means = pd.DataFrame({"x": points["entropy"]["mean"], "y": points[measure]["mean"]}).dropna()
    if frontier:
        means, name = means.iloc[pareto(means["x"].to_numpy(), means["y"].to_numpy())], "best trade"
    else:
        slope, level = np.polyfit(means["x"], means["y"], 1) if means["x"].nunique() > 1 else (0.0, means["y"].mean())
        ends = np.array([means["x"].min(), means["x"].max()])
        means, name = pd.DataFrame({"x": ends, "y": level + slope * ends}), "least squares"
    fig.add_scatter(
        x=means["x"], y=means["y"], mode="lines", name=name, legendgroup=name, showlegend=panel == 0, hoverinfo="skip",
        line={"color": REFERENCE, "width": 1, "dash": "dot"}, **on(panel),
    )  # fmt: skip


def _rho(points: pd.DataFrame, measure: str) -> str:
    rho = spearman(points["entropy"]["mean"], points[measure]["mean"])
    return "undefined" if np.isnan(rho) else f"{rho:+.2f}"


def _from_to(values) -> str:
    kept = pd.Series(values).dropna()
    return f"{kept.iloc[0]:.3g} → {kept.iloc[-1]:.3g}" if len(kept) else "no data"
