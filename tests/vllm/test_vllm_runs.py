"""Whole GRPO runs that sample with vLLM: one after the other in this process, through the engine's death and back."""

import json
import os
import signal
from pathlib import Path

import pytest

import workbench as wb
from workbench.rollout import EngineDied, VllmEngine
from workbench.training import train_run

pytestmark = pytest.mark.vllm
CONFIG = wb.preset(
    "smoke",
    {
        "rollout.engine": "vllm",
        "rollout.vllm.cache_gib": 0.25,
        "training.old_logp": "trainer",
        "evaluation.samples": 2,
    },
)


def quiet(_line):
    pass


def shared_files():
    return set(Path("/dev/shm").glob("workbench-vllm-*"))


def test_runs_follow_one_another_and_one_whose_engine_dies_goes_on(tmp_path, monkeypatch):
    before = shared_files()
    whole = wb.open_run(train_run(CONFIG, tmp_path / "whole", quiet))
    metrics = whole.metrics
    assert len(metrics) == 4 and set(whole.evals["step"]) == {0, 4}
    assert (metrics["gap/max"] < 0.01).all() and metrics["entropy/mean"].gt(0).all()
    assert metrics["update/count"].eq(2).all() and whole.provenance["packages"]["vllm"]
    assert shared_files() == before

    original = VllmEngine.generate

    def deadly(self, *arguments, **options):
        if arguments[4].step == 4 and arguments[4].purpose == "train":
            os.kill(self.process.pid, signal.SIGKILL)
        return original(self, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(VllmEngine, "generate", deadly)
        with pytest.raises(EngineDied, match="train the same config to continue"):
            train_run(CONFIG, tmp_path / "died", quiet)
    run = wb.open_run(tmp_path / "died" / CONFIG.run_id)
    assert run.status["state"] == "failed" and "SIGKILL" in run.status["reason"] and max(run.checkpoints) == 2
    assert shared_files() == before
    train_run(CONFIG, tmp_path / "died", quiet)
    assert run.status["state"] == "finished"
    lines = [[json.loads(line) for line in (r.path / "metrics.jsonl").open()] for r in (whole, run)]
    assert lines[0] == lines[1]
    assert whole.rollouts(4).tokens["token"].equals(run.rollouts(4).tokens["token"])


def test_the_engine_needs_the_trainers_log_probs():
    with pytest.raises(wb.ConfigError, match=r"training\.old_logp"):
        wb.preset("smoke", {"rollout.engine": "vllm"})
