"""Figures of single questions over training: which of them an arm wins, and how much their scores come and go."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from workbench.metrics.performance import powers_of_two, prompt_accuracy
from workbench.plots.describe import describe
from workbench.plots.panels import add_band, add_line, panels, told, x_of
from workbench.plots.theme import axis

EVALUATIONS = 5
"""Last evaluations of a run over which its scores come and go."""
LEVELS = 5
"""Equal intervals of accuracy into which questions fall."""


def accuracy_by_difficulty(samples: pd.DataFrame) -> go.Figure:
    """Accuracy after training of questions that were equally hard before it, every arm, mean over seeds and their
    range; dotted: before training. First evaluation set; `samples` as `Study.samples` gives them."""
    chosen = samples[samples["set"] == samples["set"].iloc[0]]
    arms = list(dict.fromkeys(chosen["arm"]))
    fig, said = panels([("Accuracy after training", "share of samples; dotted: before")], arms), []
    before = _before_and_after(chosen[chosen["arm"] == arms[0]])["before"].groupby(level="interval").mean()
    add_line(fig, before.index, before, "before training", 0, dash="dot", legend=False)
    for index, arm in enumerate(arms):
        table = _before_and_after(chosen[chosen["arm"] == arm])["after"].unstack("seed")
        add_band(fig, table, arm, index, markers=True)
        hardest, easiest = table.mean(axis=1).iloc[[0, -1]]
        said.append(f"{arm} {hardest:.2f} and {easiest:.2f}")
    fig.update_layout(xaxis=axis(title="accuracy before training, middle of the interval"), yaxis={"range": [0, 1.02]})
    return describe(fig, f"Accuracy after training in the hardest and the easiest interval: {told(said)}.")


def fluctuation(evaluations: pd.DataFrame) -> go.Figure:
    """How much scores come and go over the last evaluations of a run. Left: the standard deviation of a question's
    accuracy, by its mean accuracy, beside what drawing n samples alone would give, √(p(1 − p)/n) (dotted). Right: that
    of the whole set's score, by the number of samples per question. Mean over seeds, and their range.

    `evaluations`: arm, seed and the columns of `Run.evals`, of one set, as `Study.evaluations` gives them.
    """
    steps = sorted(evaluations["step"].unique())[-EVALUATIONS:]
    late = evaluations[evaluations["step"].isin(steps)]
    arms, samples = list(dict.fromkeys(late["arm"])), late["sample"].nunique()
    ks = powers_of_two(samples)
    titles = ["Fluctuation of a question", "Fluctuation of the score"]
    fig = panels([(titles[0], "s. d.; dotted: sampling alone"), (titles[1], "s. d. of accuracy")], arms)
    share = np.linspace(0, 1, 41)
    add_line(fig, share, np.sqrt(share * (1 - share) / samples), "sampling alone", 0, dash="dot", legend=False)
    said = []
    for index, arm in enumerate(arms):
        own = late[late["arm"] == arm]
        add_band(fig, _by_question(own), arm, index, 0, titles[0], markers=True)
        whole = _of_score(own, ks)
        add_band(fig, whole, arm, index, 1, titles[1], markers=True)
        few, many = whole.mean(axis=1).iloc[[0, -1]]
        said.append(f"{arm} {few:.3f} → {many:.3f}")
    fig.layout[x_of(0)].title.text = "mean accuracy of the question"
    fig.layout[x_of(1)].update(type="log", tickvals=ks, ticktext=[str(k) for k in ks])
    fig.layout[x_of(1)].title.text = "samples per question"
    fig.update_layout(yaxis={"rangemode": "tozero"}, yaxis2={"rangemode": "tozero"})
    return describe(
        fig, f"Standard deviation of the score over the last {len(steps)} evaluations, with one sample per question → "
        f"with {samples}: {told(said)}.",
    )  # fmt: skip


def _intervals(accuracy: pd.Series) -> pd.Series:
    """The middle of the interval that each accuracy lies in."""
    number = np.minimum((accuracy.to_numpy() * LEVELS).astype(int), LEVELS - 1)
    return pd.Series((number + 0.5) / LEVELS, index=accuracy.index)


def _before_and_after(samples: pd.DataFrame) -> pd.DataFrame:
    """Mean accuracy of the questions `before` and `after` training, by interval of the accuracy before, and seed."""
    parts = []
    for seed, own in samples.groupby("seed"):
        wide = prompt_accuracy(own).pivot_table(index="prompt", columns="step", values="accuracy")
        ends = pd.DataFrame({"before": wide.iloc[:, 0], "after": wide.iloc[:, -1], "seed": seed})
        parts.append(ends.assign(interval=_intervals(ends["before"])))
    return pd.concat(parts).groupby(["interval", "seed"])[["before", "after"]].mean()


def _by_question(evaluations: pd.DataFrame) -> pd.DataFrame:
    """Standard deviation over evaluations of a question's accuracy [interval of its mean accuracy, seeds]."""
    columns = {}
    for seed, own in evaluations.groupby("seed"):
        by_prompt = prompt_accuracy(own).groupby("prompt")["accuracy"]
        columns[seed] = by_prompt.std(ddof=1).groupby(_intervals(by_prompt.mean())).mean()
    return pd.DataFrame(columns).sort_index()


def _of_score(evaluations: pd.DataFrame, ks: list[int]) -> pd.DataFrame:
    """Standard deviation over evaluations of the mean accuracy of the first k samples [k, seeds]."""
    columns = {}
    for seed, own in evaluations.groupby("seed"):
        score = [own[own["sample"] < k].groupby("step")["correct"].mean().std(ddof=1) for k in ks]
        columns[seed] = pd.Series(score, index=ks)
    return pd.DataFrame(columns)
