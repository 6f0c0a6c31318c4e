"""Two processes under torchrun against one: the same rollouts, selections and metrics; stopped, killed, continued."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import psutil
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

import workbench as wb
from workbench import ranks
from workbench.__main__ import main
from workbench.config import RolloutConfig
from workbench.policy.model import load_policy
from workbench.rollout import make_engine
from workbench.store import Run
from workbench.training import train_run
from workbench.training.trainer import Trainer

SMALL = {
    "training.steps": 6,
    "evaluation.every": 3,
    "evaluation.samples": 2,
    "evaluation.prompts": 5,
    "training.micro_batch_tokens": 128,
    "storage.keep_rollouts_every": 1,
}
METHODS = ["grpo", "dynamic_sampling", {"name": "clip_cov", "low": 0.0, "high": 10.0}, "entropic", "kl_reference"]
CONFIG = wb.preset("smoke", SMALL | {"methods": METHODS, "policy.activation_checkpointing": True})
LORA = wb.preset("smoke", SMALL | {"methods": ["grpo", "kl_reference"], "policy.lora.rank": 4, "training.steps": 4})
TOLERANCE = 2e-3
"""Relative: float32, six steps of Adam, which makes much of small gradients."""


def torchrun(root: Path, config, *options: str) -> subprocess.Popen:
    path = root / "config.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(config.to_yaml())
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += [*options, "-m", "workbench", "train", "--config", str(path), "--root", str(root)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)


def wait_for_line(process, containing: str) -> None:
    seen = []
    for line in process.stdout:
        seen.append(line)
        if containing in line:
            return
    raise AssertionError(f"the run ended before printing '{containing}':\n{''.join(seen)}")


def rank_of(process, number: int) -> psutil.Process:
    found = [p for p in psutil.Process(process.pid).children(recursive=True) if "workbench" in p.cmdline()]
    return next(p for p in found if p.environ()["RANK"] == str(number))


def assert_same_run(one: Run, other: Run) -> None:
    """Prompts, tokens, verdicts and selections are equal; numbers are, up to rounding."""
    assert one.rollout_steps == other.rollout_steps
    for step in one.rollout_steps:
        for table in ("sequences", "tokens"):
            mine, theirs = (getattr(run.rollouts(step), table) for run in (one, other))
            exact = [name for name, kind in mine.dtypes.items() if not pd.api.types.is_float_dtype(kind)]
            pd.testing.assert_frame_equal(mine[exact], theirs[exact])
            pd.testing.assert_frame_equal(mine, theirs, rtol=TOLERANCE, atol=TOLERANCE)
    for name in ("metrics", "evals"):
        mine, theirs = (getattr(run, name).filter(regex="^(?!time/)") for run in (one, other))
        pd.testing.assert_frame_equal(mine, theirs, rtol=TOLERANCE, atol=TOLERANCE)
    assert list(one.checkpoints) == list(other.checkpoints)
    step = max(one.checkpoints)
    for file in one.checkpoints[step].glob("*.safetensors"):
        mine, theirs = load_file(file), load_file(other.checkpoints[step] / file.name)
        assert {name: value.shape for name, value in mine.items()} == {n: value.shape for n, value in theirs.items()}
        for name, value in mine.items():
            torch.testing.assert_close(value, theirs[name], rtol=TOLERANCE, atol=TOLERANCE)


def test_two_ranks_stopped_and_one_killed_and_continued_by_a_single_process(tmp_path):
    folder = tmp_path / "ranks" / CONFIG.run_id

    process = torchrun(tmp_path / "ranks", CONFIG)
    wait_for_line(process, "step    1/6")
    process.send_signal(signal.SIGTERM)
    process.communicate()
    stopped = wb.open_run(folder)
    assert stopped.status["state"] == "interrupted" and "SIGTERM" in stopped.status["reason"]
    assert list(stopped.checkpoints) == [stopped.status["step"]]
    assert stopped.provenance["ranks"] == 2
    load_policy(str(stopped.checkpoints[stopped.status["step"]]))  # a normal folder of transformers

    process = torchrun(tmp_path / "ranks", CONFIG)
    wait_for_line(process, "step    5/6")
    rank_of(process, 1).send_signal(signal.SIGKILL)
    started = time.monotonic()
    process.communicate()
    assert process.returncode != 0 and time.monotonic() - started < 40
    killed = wb.open_run(folder)
    assert killed.status["state"] == "failed" and "another rank has ended" in killed.status["reason"]
    assert max(killed.checkpoints) == 4

    train_run(CONFIG, tmp_path / "ranks", log=lambda line: None)
    alone = Run(train_run(CONFIG, tmp_path / "alone", log=lambda line: None))
    assert alone.metrics["update/count"].sum() > 0 and (alone.metrics["sampling/rounds"] > 1).any()
    assert_same_run(alone, wb.open_run(folder))


def test_adapters_of_a_single_process_are_continued_by_two_ranks_that_torchrun_restarts(tmp_path):
    class Crash(Exception):
        pass

    def crash_after_three(line):
        if line.startswith("step    3/4"):
            raise Crash

    with pytest.raises(Crash):
        train_run(LORA, tmp_path / "ranks", log=crash_after_three)
    process = torchrun(tmp_path / "ranks", LORA, "--max-restarts", "1")
    wait_for_line(process, "step 2 of 4 on 2 ranks")
    wait_for_line(process, "step    3/4")
    rank_of(process, 0).send_signal(signal.SIGKILL)
    wait_for_line(process, "step 2 of 4 on 2 ranks")
    output = process.communicate()[0]
    assert process.returncode == 0, output
    assert output.count("is finished") == 1
    alone = Run(train_run(LORA, tmp_path / "alone", log=lambda line: None))
    assert_same_run(alone, wb.open_run(tmp_path / "ranks" / LORA.run_id))


FAILS_ALONE = """
import sys, time
from pathlib import Path
from workbench import ranks
from workbench.training.watch import Watch

ranks.join()
with Watch(lambda reason: Path(sys.argv[1]).write_text(reason)) as watch:
    if ranks.number() == 1:
        watch.report("out of memory (rank 1)")
    time.sleep(60)  # as if in an operation that the other rank never joins
"""


def test_a_rank_that_fails_alone_ends_the_others_with_its_reason(tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    shared = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "test"}
    command = [sys.executable, "-c", FAILS_ALONE, str(tmp_path / "reason")]
    processes = [subprocess.Popen(command, env=os.environ | shared | {"RANK": str(rank)}) for rank in (0, 1)]
    assert processes[0].wait(60) == 1
    assert (tmp_path / "reason").read_text() == "out of memory (rank 1)"
    processes[1].kill()
    processes[1].wait()


def test_what_ranks_cannot_do_is_refused(monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "test")
    monkeypatch.setenv("WORLD_SIZE", "2")
    refused = CliRunner().invoke(main, ["runs"])
    assert refused.exit_code == 1 and "start it without torchrun" in refused.output
    monkeypatch.setattr(ranks, "count", lambda: 2)
    with pytest.raises(ValueError, match="leave it at 'auto'"):
        Trainer(wb.preset("smoke", {"policy.device": "cuda:1"}))
    split = {"engine": "vllm", "vllm": {"tensor_parallel": 2}}
    with pytest.raises(ValueError, match="set it to 1"):
        make_engine(RolloutConfig(**split), policy=None)
