"""Figures from single evaluation samples of a study's arms: how sure, how often right, in how many tries.

`samples`: arm, seed and the columns of `Run.evals`, of the evaluation before training and the last one, as
`Study.samples` gives them.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from workbench.metrics.calibration import logp_gap, mean_logp
from workbench.metrics.performance import pass_at_k_table, prompt_accuracy
from workbench.metrics.prompt_entropy import prompt_entropy_and_accuracy, prompt_entropy_by_prompt
from workbench.plots.describe import describe
from workbench.plots.panels import add_band, add_line, mark, on, panels, told, x_of, y_of
from workbench.plots.theme import OKABE_ITO, axis, figure, panel_title

VIOLIN_POINTS = 200
"""Points that stand for a distribution: its quantiles, at equal distances."""
BEFORE = "before training"


def logp_violins(samples: pd.DataFrame) -> go.Figure:
    """Distributions of the mean log-prob per token (nats) of incorrect (left half) and correct responses (right half),
    before training and after it for every arm, seeds pooled; the line in a half is its mean. First evaluation set."""
    samples = _of_first_set(samples)
    first = samples[(samples["arm"] == samples["arm"].iloc[0]) & (samples["step"] == samples["step"].min())]
    groups = {BEFORE: first} | {arm: rows for arm, rows in _last(samples).groupby("arm", sort=False)}
    fig, said = figure(470, violinmode="overlay", violingap=0.1, margin_t=72), []
    fig.add_annotation(panel_title("Mean log-prob of a response", "nats per token", y=1))
    for name, rows in groups.items():
        score, correct = mean_logp(rows), rows["correct"].to_numpy(dtype=bool)
        for side, colour, chosen in (("incorrect", OKABE_ITO[1], ~correct), ("correct", OKABE_ITO[0], correct)):
            _half(fig, name, side, colour, score[chosen], name == BEFORE)
        right, wrong, gap = logp_gap(score, correct)
        said.append(f"{name} {wrong:.2f} / {right:.2f} / {gap:.2f}")
    fig.layout.xaxis, fig.layout.yaxis = axis(type="category"), axis()
    fig.layout.legend.y = 1 + 28 / fig.layout.height
    return describe(fig, f"Mean log-prob, nats per token, incorrect / correct / gap: {'; '.join(said)}.")


def prompt_scatter(samples: pd.DataFrame) -> go.Figure:
    """Prompt entropy (nats per token) against the share of samples that solve the prompt, one point per prompt, before
    training; one panel per evaluation set, with Spearman's ρ over prompts."""
    first = samples[samples["step"] == samples["step"].min()]
    first = first[(first["arm"] == first["arm"].iloc[0]) & (first["seed"] == first["seed"].iloc[0])]
    rho = prompt_entropy_and_accuracy(first).set_index("set")["spearman"].loc[list(dict.fromkeys(first["set"]))]
    fig = panels([(f"Solved, {name}", f"share of samples; ρ over prompts {rho[name]:+.2f}") for name in rho.index], [])
    points = prompt_entropy_by_prompt(first).merge(prompt_accuracy(first), on=["step", "set", "prompt"])
    for panel, name in enumerate(rho.index):
        rows = points[points["set"] == name]
        fig.add_scatter(
            x=rows["prompt_entropy"], y=rows["accuracy"], mode="markers", marker=mark(0, 7) | {"opacity": 0.7},
            name=name, showlegend=False, hovertemplate="%{x:.3f} nats, solved %{y:.2f}<extra></extra>", **on(panel),
        )  # fmt: skip
        fig.layout[x_of(panel)].title.text = "prompt entropy, nats per token"
    said = "; ".join(f"{name} {value:+.2f} over {(points['set'] == name).sum()} prompts" for name, value in rho.items())
    return describe(fig, f"Spearman's ρ of prompt entropy and accuracy before training: {said}.")


def pass_rates(samples: pd.DataFrame) -> go.Figure:
    """How many prompts each arm solves how often: share of the prompts by the share of their samples that are correct,
    after training, mean over seeds; dotted: before training. First evaluation set."""
    chosen = _of_first_set(samples)
    last, start = _last(chosen), chosen[chosen["step"] == chosen["step"].min()]
    arms = list(dict.fromkeys(last["arm"]))
    fig, said = (
        panels([("Prompts by how often they are solved", "share of prompts; dotted: before training")], arms),
        [],
    )
    before = _rate_table(start[start["arm"] == arms[0]])
    add_line(fig, before.index, before.mean(axis=1), BEFORE, 0, dash="dot", legend=False)
    for index, arm in enumerate(arms):
        table = _rate_table(last[last["arm"] == arm])
        add_band(fig, table, arm, index, markers=True)
        never, always = table.mean(axis=1).iloc[[0, -1]]
        said.append(f"{arm} never {never:.2f}, always {always:.2f}")
    fig.update_layout(
        xaxis=axis(title="share of the samples of a prompt that are correct"), yaxis={"rangemode": "tozero"}
    )
    return describe(fig, f"Share of prompts that are solved never and in every sample: {told(said)}.")


def pass_curves(samples: pd.DataFrame) -> go.Figure:
    """pass@k over k of every arm after training, one panel per evaluation set: mean over seeds, and their range; before
    training it is dotted."""
    sets, last = list(dict.fromkeys(samples["set"])), _last(samples)
    arms = list(dict.fromkeys(last["arm"]))
    fig, said = panels([(f"pass@k, {name}", "share of prompts; dotted: before") for name in sets], arms), []
    start = samples[(samples["step"] == samples["step"].min()) & (samples["arm"] == arms[0])]
    for panel, name in enumerate(sets):
        before = _pass_table(start[start["set"] == name])
        add_line(fig, before.index, before.mean(axis=1), BEFORE, 0, panel, name, dash="dot", legend=False)
        ends = []
        for index, arm in enumerate(arms):
            table = _pass_table(last[(last["arm"] == arm) & (last["set"] == name)])
            add_band(fig, table, arm, index, panel, name, markers=True)
            mean = table.mean(axis=1)
            ends.append(f"{arm} {mean.iloc[0]:.3f} → {mean.iloc[-1]:.3f}")
        ks = list(before.index)
        fig.layout[x_of(panel)].update(type="log", tickvals=ks, ticktext=[str(k) for k in ks])
        fig.layout[x_of(panel)].title.text = "k"
        fig.layout[y_of(panel)].range = [0, 1.02]
        said.append(f"{name}, k = {ks[0]} → {ks[-1]}: {told(ends)}")
    return describe(fig, f"pass@k after training. {'. '.join(said)}.")


def _of_first_set(samples: pd.DataFrame) -> pd.DataFrame:
    return samples[samples["set"] == samples["set"].iloc[0]]


def _last(samples: pd.DataFrame) -> pd.DataFrame:
    return samples[samples["step"] == samples.groupby(["arm", "seed"])["step"].transform("max")]


def _half(fig: go.Figure, name: str, side: str, colour: str, score: np.ndarray, legend: bool) -> None:
    """One half of a violin from the quantiles of score [n]; nothing for an empty one."""
    if len(score) == 0:
        return
    drawn = np.quantile(score, (np.arange(VIOLIN_POINTS) + 0.5) / VIOLIN_POINTS)
    fig.add_violin(
        x=[name] * VIOLIN_POINTS, y=drawn, side="negative" if side == "incorrect" else "positive", name=side,
        legendgroup=side, scalegroup=name, showlegend=legend, line={"color": colour, "width": 1}, points=False,
        meanline={"visible": True, "width": 2}, spanmode="hard", width=0.9, hoverinfo="skip",
    )  # fmt: skip


def _rate_table(samples: pd.DataFrame) -> pd.DataFrame:
    """Share of prompts [share of samples correct, seeds]."""
    rows = []
    for seed, own in samples.groupby("seed"):
        rate = prompt_accuracy(own)["accuracy"].value_counts(normalize=True)
        rows.append(rate.rename(seed))
    n = samples["sample"].nunique()
    return pd.concat(rows, axis=1).reindex(np.arange(n + 1) / n).fillna(0.0)


def _pass_table(samples: pd.DataFrame) -> pd.DataFrame:
    """pass@k [k, seeds] of one arm and set."""
    parts = [pass_at_k_table(own).set_index("k")["value"].rename(seed) for seed, own in samples.groupby("seed")]
    return pd.concat(parts, axis=1)
