"""Evaluations on disk: parts, resumption, settings; the same code as during training."""

import json
from pathlib import Path

import pandas as pd
import pytest

from tests.synthetic import write_run
from workbench.policy.model import Policy, load_policy
from workbench.store.layout import Layout
from workbench.study import evaluate as study
from workbench.tasks import get_task
from workbench.tasks.sandbox import SandboxUnavailable
from workbench.training.evaluation import Evaluation

DATA = Path(__file__).parent.parent / "data"
SETTINGS = {"prompts": 12, "samples": 4, "temperature": 1.0, "seed": 3}


@pytest.fixture(scope="module")
def policy():
    return load_policy()


def run(out, lines=None, sets="reduce", **changes):
    log = (lambda line: None) if lines is None else lines.append
    return study.evaluate_subject("bundled", out, sets=sets, **(SETTINGS | changes), log=log)


def small_parts(monkeypatch, batch=16):
    """Parts of `batch` / 4 prompts, so that a small evaluation has several."""
    monkeypatch.setattr(study, "Evaluation", lambda *fields, **more: Evaluation(*fields, **more, batch=batch))


def test_the_file_holds_every_sample_with_its_settings(tmp_path):
    table = run(tmp_path, top_p=0.9, temperature=0.8)
    (path,) = tmp_path.rglob("*.parquet")
    samples = pd.read_parquet(path)
    assert len(samples) == 48
    assert {"text", "logp", "length", "correct", "answer", "prompt_entropy"} <= set(samples)
    assert samples["temperature"].unique() == pytest.approx([0.8])
    assert samples["top_p"].unique() == pytest.approx([0.9])
    settings = json.loads((path.parent / "settings.json").read_text())
    assert (settings["temperature"], settings["top_p"], settings["samples"]) == (0.8, 0.9, 4)
    average = table.set_index(["measure", "k"])["value"][("avg", 4)]
    assert average == pytest.approx(samples["correct"].mean())


def test_a_stopped_evaluation_samples_only_what_is_missing(tmp_path, monkeypatch):
    run(tmp_path / "whole")
    (whole,) = (tmp_path / "whole").rglob("*.parquet")
    small_parts(monkeypatch)
    sampled, part = [], Evaluation.part

    def stops(self, policy, first):
        if first == 8 and 8 not in sampled:
            sampled.append(first)
            raise KeyboardInterrupt
        sampled.append(first)
        return part(self, policy, first)

    monkeypatch.setattr(Evaluation, "part", stops)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "parts")
    assert sorted(p.name for p in (tmp_path / "parts").rglob("*.parquet")) == ["000000.parquet", "000004.parquet"]
    run(tmp_path / "parts")
    assert sampled == [0, 4, 8, 8]
    (path,) = (tmp_path / "parts").rglob("*.parquet")
    assert path.name == "reduce.parquet"
    parts, expected = pd.read_parquet(path), pd.read_parquet(whole)
    pd.testing.assert_frame_equal(parts, expected, rtol=1e-4)
    lines = []
    run(tmp_path / "parts", lines)
    assert sampled == [0, 4, 8, 8]
    assert "sampled already" in lines[0]


def test_the_command_and_the_trainer_sample_alike(tmp_path, policy):
    run(tmp_path)
    (path,) = tmp_path.rglob("*.parquet")
    during_training = Evaluation("reduce", step=0, **SETTINGS).sample(policy)
    stored = pd.read_parquet(path)
    assert stored["text"].tolist() == during_training.text
    assert stored["logp"].tolist() == pytest.approx(during_training.logp.tolist(), abs=1e-4)


def test_top_p_samples_from_the_nucleus(policy):
    everything, nucleus = (Evaluation("reduce", 4, 8, 1.0, 0, 0, top_p).sample(policy) for top_p in (1.0, 0.5))
    assert nucleus.logp.mean() > everything.logp.mean()
    assert len(set(nucleus.text)) < len(set(everything.text))


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("math/aime24?path=nowhere.jsonl", "nowhere.jsonl"),
        (f"code/livecodebench?path={DATA / 'livecodebench.jsonl'}", "are not run: no namespaces"),
        (f"instructions/ifeval?path={DATA / 'ifeval.jsonl'}", "sentence model|no token for any part"),
    ],
)
def test_a_set_that_cannot_be_had_judged_or_read_is_told_before_any_set_is_sampled(name, says, tmp_path, monkeypatch):
    monkeypatch.setattr("workbench.tasks.code.why_unavailable", lambda: "no namespaces")
    monkeypatch.setattr(Evaluation, "part", lambda *_: pytest.fail("something was sampled"))
    with pytest.raises((ValueError, SandboxUnavailable), match=says):
        run(tmp_path, sets=f"reduce,{name}")
    assert list(tmp_path.iterdir()) == []


def test_a_model_is_asked_by_its_chat_template(tmp_path, monkeypatch):
    chatty = load_policy()
    chatty.tokenizer.chat_template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    chatty.save(tmp_path / "model")
    asked, encode = [], Policy.encode
    monkeypatch.setattr(Policy, "encode", lambda self, text: asked.append(text) or encode(self, text))
    chat = {"chat_template": True, "system_prompt": "1+", "max_new_tokens": 3}
    settings = SETTINGS | {"prompts": 2}
    model, out = str(tmp_path / "model"), tmp_path / "out"
    study.evaluate_subject(model, out, "reduce,countdown", **settings, **chat, log=lambda line: None)
    bare = [prompt.text for name in ("reduce", "countdown") for prompt in get_task(name).evaluation_prompts(2)]
    assert set(asked) == {f"1+{text}" for text in bare}
    paths = list(out.rglob("*.parquet"))
    assert len(paths) == 2 and all(pd.read_parquet(path)["length"].max() <= 3 for path in paths)
    assert json.loads((paths[0].parent / "settings.json").read_text())["system_prompt"] == "1+"


def test_a_run_brings_its_own_templates(tmp_path):
    folder = write_run(tmp_path / "run")
    with pytest.raises(ValueError, match="brings its own templates; leave out chat_template"):
        study.evaluate_subject(str(folder), tmp_path / "out", "reduce", **SETTINGS, chat_template=True)


def test_settings_that_differ_are_different_evaluations(tmp_path):
    run(tmp_path, prompts=2)
    run(tmp_path, prompts=2, top_p=0.5)
    assert len(list(tmp_path.iterdir())) == 2


def test_any_set_name_is_a_file_name_of_its_own():
    names = ["reduce", "math/aime24", "math-aime24", "math/aime24?path=../a b.jsonl", "math/" + "x" * 300]
    files = [Layout(Path("run")).evaluation(3, name) for name in names]
    assert files[0].name == "000003.reduce.parquet"
    assert len(set(files)) == len(names)
    assert all(file.parent == Path("run/evals") and len(file.name) < 120 for file in files)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"top_p": 0.0}, "top-p"),
        ({"temperature": 0.0}, "temperature"),
        ({"samples": 0}, "one sample"),
        ({"sets": " ,"}, "no evaluation set"),
        ({"sets": "redcue"}, "did you mean 'reduce'"),
    ],
)
def test_settings_out_of_range_are_refused_before_anything_is_written(changes, says, tmp_path):
    with pytest.raises(ValueError, match=says):
        run(tmp_path, **changes)
    assert list(tmp_path.iterdir()) == []
