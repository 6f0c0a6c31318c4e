"""Studies as data: every definition is sound, runs are shared, and what notebooks show comes from the runs alone."""

import json

import numpy as np
import pandas as pd
import pytest

from tests.synthetic import evals, metrics_row, write_status
from workbench import plots
from workbench.config import ConfigError
from workbench.plots.study import pareto
from workbench.report import Claims
from workbench.study.definitions import arms, claims, definition, make_effect, study_names
from workbench.study.effects import Order
from workbench.study.scorecard import make_scorecard, parse_seeds, scorecard
from workbench.study.study import SCALES, ArmRuns, Study, arm_config, with_published

CLIP = "14_clip_thresholds"


@pytest.mark.parametrize("name", study_names())
def test_every_definition_is_sound(name):
    found = definition(name)
    assert found.question.endswith("?") and len(found.arms) == len(set(found.arms))
    assert {claim.identifier.split("/")[0] for claim in claims(name)} == {name}
    assert len({claim.identifier for claim in claims(name)}) == len(found.claims)
    named = [*found.published.values(), *(curve for curves in found.further.values() for curve in curves.values())]
    assert all(plots.published_curve(curve) is not None for curve in named)


@pytest.mark.parametrize("scale", SCALES)
def test_every_arm_is_a_config_of_its_own(scale):
    hashes = [arm_config(arm, scale, 0).content_hash for arm in arms()]
    assert len(hashes) == len(set(hashes))


def test_a_run_is_shared_by_the_studies_that_need_it(tmp_path):
    clip, updates = Study(CLIP, root=tmp_path), Study("15_off_policy_updates", root=tmp_path)
    assert clip.cells["grpo", 1].output == updates.cells["grpo", 1].output


def test_the_published_value_is_the_same_effect_on_the_published_curves():
    found = {claim.identifier.split("/")[1]: with_published(claim, definition(CLIP)) for claim in claims(CLIP)}
    higher, free = (
        plots.published_curve(f"2511.05993-fig3-entropy-n4-clip-{arm}")["value"] for arm in ("higher", "free")
    )
    assert found["higher-free"].published == pytest.approx(higher[-10:].mean() - free[-10:].mean())
    assert all(claim.published > 0 for claim in found.values()), "the paper's own curves support its claims"


@pytest.mark.parametrize("name", [name for name in study_names() if definition(name).published])
def test_published_curves_bear_out_the_strong_claims_on_final_entropy(name):
    for claim in claims(name):
        if isinstance(claim.effect, Order) and claim.kind == "strong" and claim.effect.metric == "entropy/mean":
            published = with_published(claim, definition(name)).published
            assert published is None or published > 0, claim.identifier


@pytest.mark.parametrize(
    ("kind", "given", "said"),
    [
        ("order", {"higher": "a", "lover": "b"}, "takes higher, lower, metric, not lover"),
        ("order", list("abcd"), "takes"),
    ],
)
def test_an_effect_with_wrong_arguments_is_refused(kind, given, said):
    with pytest.raises(ConfigError, match=said):
        make_effect(kind, given)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("14_clip_treshold",), "did you mean '14_clip_thresholds'"),
        ((CLIP, "cpuu"), "unknown scale"),
        ((CLIP, "cpu", ()), "seeds is empty"),
    ],
)
def test_a_study_that_cannot_be_is_refused(arguments, said):
    with pytest.raises(ConfigError, match=said):
        Study(*arguments)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The clip study with made-up runs: entropy falls, and ends higher the later an arm stands in the list."""
    study = Study(CLIP, "smoke", (0, 1, 2), tmp_path_factory.mktemp("outputs") / "runs")
    for (arm, seed), cell in study.cells.items():
        rng, rank = np.random.default_rng(seed), study.definition.arms.index(arm)
        if (arm, seed) == ("clip_free", 2):
            continue
        cell.output.mkdir(parents=True)
        (cell.output / "evals").mkdir()
        (cell.output / "config.yaml").write_text(cell.config.to_yaml())
        (cell.output / "provenance.json").write_text("{}")
        write_status(cell.output, "finished", step=40, steps=40)
        rows = [metrics_row(step, 40, rng) for step in range(1, 41)]
        for row in rows:
            row["entropy/mean"] += 0.1 * rank * row["step"] / 40
        (cell.output / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        for step in (0, 20, 40):
            samples = evals(step, 40, rng)
            samples.to_parquet(cell.output / "evals" / f"{step:06d}.reduce.parquet")
            other = samples.assign(set="countdown", correct=False)
            other.to_parquet(cell.output / "evals" / f"{step:06d}.countdown.parquet")
    return study


def test_arms_say_how_their_runs_stand(finished):
    table = finished.arms.set_index("arm")
    assert (
        table.loc["clip_free", "finished"] == "2 of 3 seeds"
        and table.loc["grpo", "differs in"] == "nothing: plain GRPO"
    )


def test_claims_are_judged_on_the_runs_there_are(finished):
    table = finished.claims().table.set_index("claim")
    assert table.loc[f"{CLIP}/tighter-default", "verdict"] == "reproduced"
    assert table.loc[f"{CLIP}/default-lower", "verdict"] == "contradicted"
    assert table.loc[f"{CLIP}/free-default", "seeds"] == 2
    assert table["published"].notna().all()


def test_the_scorecard_holds_every_claim_and_marks_those_without_runs(finished):
    card = scorecard("smoke", (0, 1, 2), finished.root)
    assert len(card.table) == sum(len(claims(name)) for name in study_names())
    assert card.counts["not run"] > 0 and card.counts["reproduced"] > 0
    row = card.table[card.table["claim"] == "18_covariance_and_optimizer/plain"].iloc[0]
    assert row["verdict"] == "not run" and row["reason"] == "grpo did not record covariance/logp_advantage"


def test_a_reading_is_shown_with_a_contradiction_only():
    row = {"claim": "a/b", "sentence": "s", "source": "", "prediction": "", "effect": "", "reason": "", "seeds": 3}
    row |= {"published": None, "measured": 1.0, "low": 0.0, "high": 2.0, "holm": True, "reading": "the <i>task</i>"}
    shown = {v: Claims(pd.DataFrame([row | {"verdict": v}]), "")._html() for v in ("contradicted", "reproduced")}
    assert "the &lt;i&gt;task&lt;/i&gt;" in shown["contradicted"] and 'class="wb-reading"' not in shown["reproduced"]


def test_the_scorecard_leads_to_the_newest_report_of_each_study_at_its_scale(finished):
    output = finished.root.parent
    for key, scale, started in (
        ("old", "smoke", 1.0),
        ("new", "smoke", 2.0),
        ("other", "cpu", 3.0),
        ("running", "", 4.0),
    ):
        folder, report = output / "notebooks" / CLIP / key, output / "reports" / key / f"{CLIP}.html"
        folder.mkdir(parents=True)
        manifest = {"notebook": f"{CLIP}.ipynb", "parameters": {"scale": scale}, "started": started, "state": "running"}
        if key != "running":
            report.parent.mkdir(parents=True)
            report.write_text("")
            manifest |= {"state": "done", "report": str(report), "ended": started}
        (folder / "manifest.json").write_text(json.dumps(manifest | {"pid": 1, "process_started": 0, "host": ""}))
    card = scorecard("smoke", (0, 1, 2), finished.root, output)
    assert card.reports == {CLIP: f"../new/{CLIP}.html"}
    assert f'<a href="../new/{CLIP}.html">{CLIP}</a>' in card._html()


def test_the_scorecard_plans_every_run_once(tmp_path):
    said = []
    assert make_scorecard("smoke", parse_seeds("0,1,0"), tmp_path, dry_run=True, log=said.append) is None
    runs = 2 * len({arm for name in study_names() for claim in claims(name) for arm in claim.arms})
    assert said[0].startswith(f"grid scorecard-smoke: {runs} cells") and not (tmp_path / "runs").exists()
    with pytest.raises(ConfigError, match="whole numbers separated by commas"):
        parse_seeds("0, one")


def test_samples_targets_and_ends_come_from_the_finished_runs(finished):
    samples = finished.samples()
    assert set(samples["step"]) == {0, 40} and list(dict.fromkeys(samples["set"])) == ["reduce", "countdown"]
    assert len(samples.groupby(["arm", "seed"])) == 14 and "text" not in samples
    ends = finished.ends("avg", "out-of-domain:avg").set_index("arm")
    assert ends.loc["clip_free", "seeds"] == 2 and (ends["out-of-domain:avg"] == 0).all()
    assert ends.loc["grpo", "avg"] == pytest.approx(
        np.mean([finished.runs.score("grpo", "avg", seed)[-1] for seed in (0, 1, 2)])
    )
    assert ends.loc["grpo", "tokens"] == 1 and finished.targets == {}
    held = Study("22_entropic", "smoke", (0, 1, 2), finished.root)
    assert held.targets == {}, "no arm of it has run"


def test_figures_of_a_study_and_what_they_say(finished):
    metrics, scores = finished.metrics, finished.scores("entropy", "avg", "pass@16")
    figures = [
        plots.arm_curves(metrics),
        plots.against_published(metrics, finished.published),
        plots.published_arms(finished.published),
        plots.against_published(metrics, Study("15_off_policy_updates").further("reward"), "reward/mean"),
        plots.score_curves(scores, "pass@16"),
        plots.entropy_against(scores, "avg", frontier=True),
        plots.verdicts(finished.claims().table),
    ]
    for fig in figures:
        assert len(fig.data) and plots.summary(fig)
        assert json.dumps(fig.to_plotly_json(), default=list)
    assert [trace.name for trace in figures[0].data if trace.mode == "lines"] == list(finished.definition.arms)
    with pytest.raises(KeyError, match="no published curves 'reward'; there are: none"):
        finished.further("reward")
    with pytest.raises(ValueError, match="no finished run recorded 'clip/odd'"):
        plots.arm_curves(metrics, "clip/odd")
    assert pareto(np.array([1, 2, 3, 2]), np.array([3, 2, 1, 1])) == [0, 1, 2]


def test_scores_agree_with_the_samples(finished):
    run = finished.run("grpo")
    samples = run.evals[(run.evals["step"] == 40) & (run.evals["set"] == "reduce")]
    by_hand = samples.groupby("prompt")["correct"].mean().mean()
    assert by_hand > 0 and finished.runs.score("grpo", "avg", 0)[-1] == pytest.approx(by_hand)
    assert finished.runs.score("grpo", "avg", 0, "out-of-domain")[-1] == 0
    assert isinstance(finished.runs, ArmRuns) and len(finished.runs.score("grpo", "-self_bleu", 0)) == 3


def test_a_table_of_claims_escapes_what_it_shows():
    texts = {
        "claim": "a",
        "sentence": "<img src=x>",
        "source": "<b>",
        "prediction": "a > b",
        "effect": "ΔH",
        "reason": "",
    }
    numbers = {"published": None, "measured": 0.1, "low": 0.05, "high": 0.15, "seeds": 3, "reading": ""}
    row = texts | numbers | {"verdict": "reproduced", "holm": False}
    claims_ = Claims(pd.DataFrame([row]), "<i>")
    html = claims_._repr_mimebundle_()["text/html"]
    assert "<img" not in html and "<b>" not in html and "<i>" not in html and "a &gt; b" in html
    assert claims_.counts == {"reproduced": 1, "contradicted": 0, "inconclusive": 0, "not run": 0}
