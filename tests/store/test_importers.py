"""Runs of other tools, written by those tools (see tests/data/foreign/make.py) or, for W&B and TensorBoard, here."""

import json
import math
import shutil
from pathlib import Path

import pytest

import workbench as wb
from workbench import plots
from workbench.store import list_runs, runs, sql

FOREIGN = Path(__file__).parents[1] / "data" / "foreign"


def imported(source, root, **options):
    return wb.open_run(wb.import_run(source, root=root, **options))


def test_trl_state_and_completions(tmp_path):
    run = imported(FOREIGN / "trl", tmp_path)
    state = json.loads((FOREIGN / "trl" / "trainer_state.json").read_text())["log_history"]
    theirs = [entry for entry in state if "entropy" in entry]
    metrics = run.metrics
    assert metrics["step"].tolist() == [entry["step"] for entry in theirs]
    names = {"entropy/mean": "entropy", "reward/mean": "reward", "length/mean": "completions/mean_length"}
    names |= {"clip/low_fraction": "clip_ratio/low_mean", "foreign/grad_norm": "grad_norm"}
    for ours, name in names.items():  # an update on responses made before logs no reward
        assert metrics[ours].tolist() == pytest.approx([entry.get(name, math.nan) for entry in theirs], nan_ok=True)
    assert "reward/correct" not in metrics and run.imported["tool"] == "trl"
    sequences = run.rollouts(1).sequences
    assert {"prompt_text", "text", "reward", "advantage", "group"} <= set(sequences) and "correct" not in sequences
    assert sequences.groupby("group")["prompt_text"].nunique().eq(1).all()
    assert len(run.rollouts(1).tokens) == 0


@pytest.mark.parametrize("source", ["metrics.jsonl", "console.log"])
def test_verl_json_lines_and_console(tmp_path, source):
    run = imported(FOREIGN / "verl" / source, tmp_path, rollouts=FOREIGN / "verl" / "rollouts")
    assert run.metrics["entropy/mean"].tolist() == pytest.approx([0.5, 0.25, 0.5 / 3])
    assert run.metrics["foreign/actor/pg_clipfrac"].tolist() == [0.01] * 3
    assert "clip/low_fraction" not in run.metrics and "clip/high_fraction" not in run.metrics
    assert run.metrics["time/step"].tolist() == [2.5] * 3 and run.rollout_steps == [1, 3]
    sequences = run.rollouts(3).sequences
    assert sequences["group"].tolist() == [0, 0, 1] and sequences["correct"].tolist() == [True, False, True]
    assert sequences["text"].tolist()[-1] == "5<script>#"


def test_text_that_no_file_can_hold_is_imported_as_far_as_it_can_be(tmp_path):
    (tmp_path / "log.jsonl").write_text('{"step": 1, "data": {"actor/entropy": 0.5, "half \\ud800": 1.0}}\n')
    (tmp_path / "rollouts").mkdir()
    dump = '{"input": "half \\ud800 a pair", "output": "\\udc00\\ud83d\\ude00", "score": 1.0}\n'
    (tmp_path / "rollouts" / "1.jsonl").write_text(dump)
    run = imported(tmp_path / "log.jsonl", tmp_path / "runs", rollouts=tmp_path / "rollouts")
    (row,) = run.rollouts(1).sequences.to_dict("records")
    assert row["prompt_text"] == "half \ufffd a pair" and row["text"] == "\ufffd😀"


def test_what_was_not_recorded_is_absent_from_figures_too(tmp_path):
    run = imported(FOREIGN / "verl" / "metrics.jsonl", tmp_path)
    drawn = [trace.name for trace in plots.training_curves(run.metrics, run=run.id).data]
    assert any("Entropy" in name for name in drawn) and not any("clipped" in name for name in drawn)
    with pytest.raises(ValueError, match="entropy/positive"):
        plots.entropy_by_sign(run.metrics)


def test_tensorboard_events(tmp_path):
    pytest.importorskip("tensorboard", reason="tensorboard is not installed (requirements-extras.txt)")
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(tmp_path / "events") as writer:
        for step in range(1, 1501):
            writer.add_scalar("train/entropy", 1 / step, step)
            writer.add_scalar("train/reward", math.nan if step == 2 else step / 4, step)
        writer.add_text("note", "<script>", 1)
    metrics = imported(tmp_path / "events", tmp_path / "runs").metrics
    assert len(metrics) == 1500, "nothing is thinned out"
    assert metrics["entropy/mean"].iloc[3] == pytest.approx(0.25) and math.isnan(metrics["reward/mean"].iloc[1])


def test_wandb_offline_run(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb", reason="wandb is not installed (requirements-extras.txt)")
    monkeypatch.setenv("WANDB_SILENT", "true")
    run = wandb.init(mode="offline", dir=str(tmp_path), project="p", config={"learning_rate": 1e-4, "nested": {"a": 1}})
    for step in (10, 20):
        run.log({"train/global_step": step, "train/entropy": step / 100, "actor/note": "text", "train/odd": step})
    run.finish()
    wandb.teardown()  # the file is complete once the service that writes it has ended
    found = imported(tmp_path / "wandb", tmp_path / "runs", name="mine")
    assert found.id.startswith("mine-") and found.settings["learning_rate"] == 1e-4 and found.settings["nested.a"] == 1
    assert found.metrics["step"].tolist() == [10, 20]
    assert found.metrics["entropy/mean"].tolist() == pytest.approx([0.1, 0.2])
    assert "foreign/odd" in found.metrics and "foreign/actor/note" not in found.metrics


def test_importing_again_replaces_and_runs_stand_beside_each_other(tmp_path):
    source = tmp_path / "log.jsonl"
    shutil.copy(FOREIGN / "verl" / "metrics.jsonl", source)
    first = imported(source, tmp_path / "runs")
    source.write_text(source.read_text() + '{"step":4,"data":{"actor/entropy":0.1}}\n{"step":5,"da')
    second = imported(source, tmp_path / "runs")
    imported(FOREIGN / "trl", tmp_path / "runs")
    assert first.path == second.path and second.metrics["step"].tolist() == [1, 2, 3, 4]
    assert len(list_runs(tmp_path / "runs")) == 2 and set(runs(tmp_path / "runs")["state"]) == {"finished"}
    table = sql('select run, min("entropy/mean") as low from metrics group by run', tmp_path / "runs")
    assert len(table) == 2
    with pytest.raises(ValueError, match="was imported from verl and has no RunConfig"):
        _ = second.config


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("nothing here\n", "neither JSON lines nor console lines"),
        (None, "there is nothing at"),
        ("", "neither JSON lines"),
    ],
)
def test_what_is_no_log_is_refused(tmp_path, content, said):
    source = tmp_path / "log.jsonl"
    if content is not None:
        source.write_text(content)
    with pytest.raises((ValueError, FileNotFoundError), match=said):
        wb.import_run(source, root=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()
    (tmp_path / "trainer_state.json").write_text('{"log_history": 3}')
    with pytest.raises(ValueError, match="no log_history"):
        wb.import_run(tmp_path / "trainer_state.json", root=tmp_path / "runs")
    with pytest.raises(ValueError, match="is not recognised"):
        wb.import_run(Path(__file__).parent, root=tmp_path / "runs")
