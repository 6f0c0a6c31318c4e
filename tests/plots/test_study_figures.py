"""Figures of studies as data: what they draw is what the samples and metrics say, computed here by other means."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from workbench import plots
from workbench.plots.panels import legend_rows, panels, recorded
from workbench.plots.theme import title_of

ARMS, SEEDS, STEPS = ("grpo", "clip_higher", "A<=0"), (0, 1), range(1, 13)


@pytest.fixture(scope="module")
def metrics():
    rng = np.random.default_rng(0)
    rows = [{"arm": arm, "seed": seed, "step": step} for arm in ARMS for seed in SEEDS for step in STEPS]
    table = pd.DataFrame(rows)
    for name in ("entropy/mean", "reward/mean", "change/correct", "change/incorrect"):
        table[name] = rng.normal(size=len(table))
    for tenth in range(10):
        table[f"entropy/decile_{tenth}"] = tenth + rng.random(len(table))
    return table.assign(**{"method/aer/alpha": np.where(table["arm"] == "grpo", np.nan, 0.5), "odd": np.nan})


@pytest.fixture(scope="module")
def samples():
    """Two evaluations of 5 prompts with 4 samples on two sets, as `Study.samples` gives them."""
    rng = np.random.default_rng(1)
    index = pd.MultiIndex.from_product(
        [ARMS, SEEDS, (0, 80), ("reduce", "countdown"), range(5), range(4)],
        names=["arm", "seed", "step", "set", "prompt", "sample"],
    )
    table = index.to_frame(index=False)
    logp, correct = -rng.gamma(2.0, 3.0, len(table)), rng.random(len(table)) < 0.2 + 0.1 * table["prompt"]
    return table.assign(correct=correct, logp=logp, length=6, prompt_entropy=1.0 - 0.1 * table["prompt"])


@pytest.fixture(scope="module")
def scores():
    rng = np.random.default_rng(2)
    rows = [
        (arm, seed, step, measure, rng.random())
        for arm in ARMS
        for seed in SEEDS
        for step in (0, 40, 80)
        for measure in ("entropy", "avg", "pass@16")
    ]
    return pd.DataFrame(rows, columns=["arm", "seed", "step", "measure", "value"])


def traces(fig, name):
    return [trace for trace in fig.data if trace.name == name]


def test_panels_do_not_overlap_and_share_one_legend(metrics):
    fig = plots.arm_curves(metrics, "entropy/mean", "reward/mean", "method/aer/alpha")
    domains = [(fig.layout[f"xaxis{n}"].domain, fig.layout[f"yaxis{n}"].domain) for n in ("", 2, 3)]
    (left, top), (right, beside), (below, bottom) = domains
    assert left[1] < right[0] and left == below and top == beside and bottom[1] < top[0]
    assert [trace.name for trace in fig.data if trace.showlegend] == list(ARMS)
    assert {trace.legendgroup for trace in fig.data} == set(ARMS)
    assert not traces(fig, "grpo: Alpha (aer)") and traces(fig, "A<=0: Alpha (aer)")
    assert list(plots.data_table(fig))[1:5] == [*ARMS, "grpo: Reward"]


def test_a_metric_that_no_run_has_is_said_to_be_missing(metrics):
    fig = plots.arm_curves(metrics, "entropy/mean", "odd")
    assert "not recorded" in [note.text for note in fig.layout.annotations] and "odd: not recorded" in plots.summary(
        fig
    )
    with pytest.raises(ValueError, match="no finished run recorded 'odd'"):
        plots.arm_curves(metrics, "odd", "never/heard")


def test_a_leading_minus_turns_the_sign(metrics):
    turned = recorded(metrics, ["-reward/mean", "reward/mean"])
    np.testing.assert_array_equal(turned["-reward/mean"], -metrics["reward/mean"])
    assert list(turned.index) == list(metrics.index) and title_of("-reward/mean")[0] == "−Reward"


def test_targets_are_drawn_for_the_arms_there_are(metrics):
    fig = plots.arm_curves(metrics, targets={"grpo": 0.25, "absent": 0.1})
    (target,) = traces(fig, "grpo, target")
    assert list(target.y) == [0.25, 0.25] and list(target.x) == [1, 12] and not traces(fig, "absent, target")


def test_the_legend_gets_the_rows_it_needs():
    assert legend_rows([]) == legend_rows(["grpo", "sent"]) == 1
    assert legend_rows(["aer 0.4, sign rule, all prompts alike"] * 7) == 4
    few, many = panels([("a", "")], ["x"]), panels([("a", "")], ["a longer name"] * 18)
    assert many.layout.height - few.layout.height == many.layout.margin.b - few.layout.margin.b > 0


def test_correlations_within_runs_are_those_of_scipy(scores, metrics):
    wide = scores.pivot_table(index=["arm", "seed", "step"], columns="measure", values="value")
    rho = wide.groupby(["arm", "seed"]).apply(lambda run: stats.spearmanr(run["entropy"], run["avg"])[0])
    fig = plots.scores_together(scores, "entropy", "avg")
    assert f"{rho.mean():+.2f}" in fig.layout.annotations[0].text
    assert f"A<=0 {rho['A<=0'].mean():+.2f}" in plots.summary(fig)
    assert sum(len(trace.x) for trace in fig.data) == len(wide)
    both = plots.metrics_together(metrics, "-change/correct", "reward/mean", "entropy/mean")
    assert len(both.data) == 2 * len(ARMS) and both.layout.xaxis2.title.text == "−change/correct"


def test_arms_are_correlated_by_the_means_of_their_last_evaluations(scores):
    last = scores[scores["step"] == 80].pivot_table(index="arm", columns="measure", values="value", sort=False)
    rho = stats.spearmanr(last["entropy"], last["pass@16"])[0]
    fig = plots.entropy_against(scores, "avg", "pass@16")
    assert f"{rho:+.2f}" in fig.layout.annotations[1].text
    line = traces(fig, "least squares")[1]
    slope = np.diff(line.y)[0] / np.diff(line.x)[0]
    assert slope == pytest.approx(stats.linregress(last["entropy"], last["pass@16"]).slope)


def test_changes_add_up(metrics):
    fig = plots.changes_by_part(metrics, "correct", "incorrect")
    for part in ("correct", "incorrect"):
        by_hand = [metrics[metrics["arm"] == arm][f"change/{part}"].sum() / len(SEEDS) for arm in ARMS]
        np.testing.assert_allclose(traces(fig, part)[0].x, by_hand)
    np.testing.assert_allclose(
        traces(fig, "sum")[0].x, np.add(traces(fig, "correct")[0].x, traces(fig, "incorrect")[0].x)
    )
    table = plots.data_table(fig)
    assert list(table["category"]) == list(ARMS) and list(table)[1:] == ["correct", "incorrect", "sum"]


def test_entropy_by_position_takes_the_last_ten_steps(metrics):
    fig = plots.entropy_by_position(metrics)
    rows = metrics[(metrics["arm"] == "grpo") & (metrics["step"] > 2)]
    assert traces(fig, "grpo")[0].y[3] == pytest.approx(rows["entropy/decile_3"].mean())
    first = metrics[(metrics["arm"] == "grpo") & (metrics["step"] == 1)]
    assert traces(fig, "before training")[0].y[9] == pytest.approx(first["entropy/decile_9"].mean())


def test_violins_keep_the_distributions(samples):
    fig = plots.logp_violins(samples)
    rows = samples[(samples["arm"] == "clip_higher") & (samples["step"] == 80) & samples["correct"]]
    rows = rows[rows["set"] == "reduce"]
    (half,) = [t for t in fig.data if t.x[0] == "clip_higher" and t.name == "correct"]
    values = rows["logp"] / rows["length"]
    drawn, measured = (half.y.mean(), np.median(half.y)), (values.mean(), values.median())
    assert drawn == pytest.approx(measured, abs=0.05)
    assert len([t for t in fig.data if t.showlegend]) == 2 and "before training" in plots.summary(fig)
    nobody_wrong = plots.logp_violins(samples.assign(correct=True))
    assert {trace.name for trace in nobody_wrong.data} == {"correct"}


def test_prompts_are_drawn_once_with_their_correlation(samples):
    fig = plots.prompt_scatter(samples)
    first = samples[(samples["step"] == 0) & (samples["arm"] == "grpo") & (samples["seed"] == 0)]
    for trace, name in zip(fig.data, ("reduce", "countdown"), strict=True):
        prompts = first[first["set"] == name].groupby("prompt")[["prompt_entropy", "correct"]].mean()
        assert trace.name == name and len(trace.x) == 5
        rho = stats.spearmanr(prompts["prompt_entropy"], prompts["correct"])[0]
        assert f"{name} {rho:+.2f} over 5 prompts" in plots.summary(fig)


def test_pass_rates_count_prompts(samples):
    fig = plots.pass_rates(samples)
    rows = samples[(samples["arm"] == "A<=0") & (samples["step"] == 80) & (samples["set"] == "reduce")]
    rate = rows.groupby(["seed", "prompt"])["correct"].mean()
    (line,) = [trace for trace in traces(fig, "A<=0") if trace.mode != "none"]
    assert sum(line.y) == pytest.approx(1) and list(line.x) == [0, 0.25, 0.5, 0.75, 1]
    assert line.y[2] == pytest.approx((rate == 0.5).mean())


def test_pass_curves_end_at_the_share_solved_at_least_once(samples):
    fig = plots.pass_curves(samples)
    rows = samples[(samples["arm"] == "grpo") & (samples["step"] == 80) & (samples["set"] == "countdown")]
    solved = rows.groupby(["seed", "prompt"])["correct"].any().mean()
    (line,) = traces(fig, "grpo: countdown")
    assert list(line.x) == [1, 2, 4] and line.y[-1] == pytest.approx(solved)
    assert line.y[0] == pytest.approx(rows["correct"].mean())


def test_published_models_are_drawn_like_measured_ones():
    scores = plots.published_scores("2511.05993-table2")
    table = plots.published_table("2511.05993-table2").dropna(subset="final_entropy")
    last = scores.pivot_table(index="arm", columns="measure", values="value", sort=False)
    np.testing.assert_allclose(last["LCB avg@64"], table["avg64/LCB"] / 100)
    rho = stats.spearmanr(table["final_entropy"], table["avg64/LCB"])[0]
    fig = plots.entropy_against(scores, "LCB avg@64")
    assert f"{rho:+.2f}" in fig.layout.annotations[0].text and len(fig.data) == len(table) + 1


def test_every_published_table_is_shown_whole_with_its_source():
    for name in plots.published_tables()["name"]:
        table = plots.published_table(name)
        html = table._repr_html_()
        assert html.count("<tr") == len(table) + 1 and "arXiv" in html and "nan" not in html


@pytest.mark.parametrize("draw", ["logp_violins", "prompt_scatter", "pass_rates", "pass_curves"])
def test_figures_of_samples_are_described_and_light(samples, draw):
    fig = getattr(plots, draw)(samples)
    assert plots.summary(fig) and len(json.dumps(fig.to_plotly_json(), default=list)) < 200_000


@pytest.fixture(scope="module")
def evaluations():
    """Seven evaluations of 6 prompts with 8 samples on one set, as `Study.evaluations` gives them."""
    rng = np.random.default_rng(3)
    index = pd.MultiIndex.from_product(
        [ARMS, SEEDS, range(0, 70, 10), ("reduce",), range(6), range(8)],
        names=["arm", "seed", "step", "set", "prompt", "sample"],
    )
    table = index.to_frame(index=False)
    return table.assign(correct=rng.random(len(table)) < 0.05 + 0.18 * table["prompt"])


def test_questions_are_grouped_by_their_accuracy_before_training(samples):
    fig = plots.accuracy_by_difficulty(samples)
    own = samples[(samples["arm"] == "clip_higher") & (samples["set"] == "reduce")]
    rate = own.groupby(["seed", "prompt", "step"])["correct"].mean().unstack("step")
    hard = rate[rate[0] < 0.2].groupby("seed")[80].mean().mean()
    (line,) = [trace for trace in traces(fig, "clip_higher") if trace.mode != "none"]
    assert line.x[0] == pytest.approx(0.1) and line.y[0] == pytest.approx(hard)
    easy = rate[rate[0] >= 0.8].groupby("seed")[80].mean()
    assert len(easy) == 0 or line.y[-1] == pytest.approx(easy.mean())
    (before,) = traces(fig, "before training")
    assert all(abs(y - x) <= 0.1 for x, y in zip(before.x, before.y, strict=True))


def test_fluctuation_is_the_spread_over_the_last_evaluations(evaluations):
    fig = plots.fluctuation(evaluations)
    own = evaluations[(evaluations["arm"] == "A<=0") & (evaluations["step"] >= 20)]
    by_step = own.groupby(["seed", "step"])["correct"].mean().groupby("seed").std()
    (score,) = traces(fig, "A<=0: Fluctuation of the score")
    assert list(score.x) == [1, 2, 4, 8] and score.y[-1] == pytest.approx(by_step.mean())
    spread = own.groupby(["seed", "prompt", "step"])["correct"].mean().groupby(["seed", "prompt"]).agg(["mean", "std"])
    middle = spread[(spread["mean"] >= 0.4) & (spread["mean"] < 0.6)].groupby("seed")["std"].mean().mean()
    (question,) = [trace for trace in traces(fig, "A<=0") if trace.mode != "none"]
    assert question.y[list(question.x).index(0.5)] == pytest.approx(middle)
    (alone,) = traces(fig, "sampling alone")
    assert max(alone.y) == pytest.approx(np.sqrt(0.25 / 8))
    assert plots.summary(fig) and len(json.dumps(fig.to_plotly_json(), default=list)) < 200_000


def test_scores_stand_over_all_responses_sampled(scores):
    steps = pd.MultiIndex.from_product([ARMS, SEEDS, range(1, 81)], names=["arm", "seed", "step"])
    metrics = steps.to_frame(index=False)
    metrics["sampling/groups_per_kept"] = np.where(metrics["arm"] == "A<=0", 1.5, np.nan)
    fig = plots.score_by_rollouts(scores, metrics, "avg")
    assert list(traces(fig, "grpo")[0].x) == [0, 40, 80] and list(traces(fig, "A<=0")[0].x) == [0, 60, 120]
    avg = scores[(scores["measure"] == "avg") & (scores["arm"] == "A<=0")].groupby("step")["value"].mean()
    np.testing.assert_allclose(traces(fig, "A<=0")[0].y, avg)
