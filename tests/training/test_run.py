"""Runs that are killed, stopped, doubled or starved of disk: the folder stays readable and the same config continues,
ending bit-identical to a run never interrupted."""

import contextlib
import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import workbench as wb
from workbench.store import RunLocked, RunWriter
from workbench.training import train_run

OVERRIDES = {
    "training.steps": 6,
    "methods": ["grpo", {"name": "pos_adv_reweight", "target": 1e9}],  # λ moves every step: state worth restoring
    "evaluation.every": 3,
    "evaluation.samples": 2,
}
CONFIG = wb.preset("smoke", OVERRIDES)
RANDOM = random.Random(0)


def start(root: Path, config=CONFIG) -> subprocess.Popen:
    path = root / "config.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(config.to_yaml())
    command = [sys.executable, "-m", "workbench", "train", "--config", str(path), "--root", str(root)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)


def fingerprint(folder: Path) -> dict[str, str]:
    """Hash of every file that must not depend on interruptions."""
    kept = ["metrics.jsonl", "config.yaml", "rollouts/*", "evals/*", "checkpoints/*/*"]
    files = sorted(f for pattern in kept for f in folder.glob(pattern))
    assert len(files) > 12
    return {str(f.relative_to(folder)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("undisturbed")
    process = start(root)
    assert process.wait() == 0, process.stdout.read()
    return fingerprint(root / CONFIG.run_id)


def wait_for_line(process, containing: str) -> None:
    for line in process.stdout:
        if containing in line:
            return
    raise AssertionError(f"the run ended before printing '{containing}'")


QUICK = [0.0, *(round(RANDOM.uniform(0, 1.2), 3) for _ in range(5))]
MANY = [pytest.param(round(RANDOM.uniform(0, 2.5), 4), marks=pytest.mark.slow) for _ in range(30)]


@pytest.mark.parametrize("delay", QUICK + MANY)
def test_a_killed_run_stays_readable_and_ends_bit_identical(tmp_path, undisturbed, delay):
    process = start(tmp_path)
    wait_for_line(process, "run smoke-")
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    process.wait()
    run = wb.open_run(tmp_path / CONFIG.run_id)
    assert run.status["state"] in ("lost", "finished")
    assert len(run.metrics) <= 6
    assert all(len(run.rollouts(step).tokens) for step in run.rollout_steps)
    assert run.evals.empty or set(run.evals["step"]) <= {0, 3, 6}
    again = start(tmp_path)
    assert again.wait() == 0, again.stdout.read()
    assert fingerprint(tmp_path / CONFIG.run_id) == undisturbed
    assert run.status["state"] == "finished"


def test_killed_in_the_middle_of_every_kind_of_write(tmp_path, undisturbed):
    """What a kill can leave behind, put there by hand: half a metrics line, half a checkpoint, half a table."""
    process = start(tmp_path)
    wait_for_line(process, "step    3/6")
    process.send_signal(signal.SIGKILL)
    process.wait()
    folder = tmp_path / CONFIG.run_id
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 99, "entropy/me')
    (folder / "checkpoints" / "000005.partial").mkdir(parents=True)
    (folder / "checkpoints" / "000005.partial" / "model.safetensors").write_bytes(b"\0" * 100)
    (folder / "rollouts" / "000004.tokens.parquet").write_bytes(b"PAR1 cut short")
    (folder / "rollouts" / "000005.sequences.parquet.partial").write_bytes(b"PAR1")
    run = wb.open_run(folder)
    assert run.metrics["step"].max() < 99
    assert 4 not in run.rollout_steps or len(run.rollouts(4).sequences)
    assert set(run.checkpoints) <= {2, 4}
    train_run(CONFIG, tmp_path, log=lambda line: None)
    assert fingerprint(folder) == undisturbed
    assert not list(folder.rglob("*.partial"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_request_ends_at_a_step_boundary_and_continues(tmp_path, undisturbed, number):
    process = start(tmp_path)
    wait_for_line(process, "step    1/6")
    process.send_signal(number)
    output = process.communicate()[0]
    assert process.returncode == 130, output
    run = wb.open_run(tmp_path / CONFIG.run_id)
    status = run.status
    assert status["state"] == "interrupted"
    assert max(run.checkpoints) == status["step"] == run.metrics["step"].max() < 6
    assert start(tmp_path).wait() == 0
    continued = fingerprint(tmp_path / CONFIG.run_id)
    # The stop left a checkpoint of its own; everything else, the last checkpoint included, must be the same.
    stop = f"checkpoints/{status['step']:06d}"
    common = {name for name in continued if not name.startswith(stop)} & set(undisturbed)
    assert "checkpoints/000006/model.safetensors" in common
    assert {name for name in undisturbed if not name.startswith("checkpoints")} <= common
    assert all(continued[name] == undisturbed[name] for name in common)


def test_a_second_process_is_told(tmp_path):
    long = wb.preset("smoke", {"training.steps": 10_000})
    process = start(tmp_path, long)
    wait_for_line(process, "run smoke-")
    second = start(tmp_path, long)
    output = second.communicate()[0]
    running = wb.open_run(tmp_path / long.run_id).status["state"]
    process.kill()
    process.wait()
    assert second.returncode == 1
    assert f"is being trained by process {process.pid}" in output
    assert "Traceback" not in output
    assert running == "running"


def test_a_finished_run_is_loaded_not_retrained(tmp_path):
    config = wb.preset("smoke", {"training.steps": 1, "evaluation.sets": []})
    folder = train_run(config, tmp_path, log=lambda line: None)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.suffix in (".jsonl", ".parquet")}
    lines = []
    assert train_run(config, tmp_path, log=lines.append) == folder
    assert "finished before" in lines[0]
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_the_lock_is_released_with_the_writer(tmp_path):
    with RunWriter(CONFIG, tmp_path), pytest.raises(RunLocked), RunWriter(CONFIG, tmp_path):
        pass
    with RunWriter(CONFIG, tmp_path):
        pass


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 8 MB: room for tables and metrics, not for a checkpoint. `mount -o remount` changes its size."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", folder]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a small file system (root)")
    yield folder
    subprocess.run(["umount", folder], check=True)


def resize(folder, size):
    subprocess.run(["mount", "-o", f"remount,size={size}", folder], check=True)


def assert_told_of_full_disk(process):
    output = process.communicate()[0]
    assert process.returncode == 1, output
    assert "disk full in step" in output and "free some space" in output
    assert "Traceback" not in output


def test_a_full_disk_stops_the_run_and_space_continues_it(small_disk, undisturbed):
    resize(small_disk, "60m")
    process = start(small_disk)
    wait_for_line(process, "step    2/6")
    ballast = small_disk / "ballast"
    with ballast.open("wb") as file, contextlib.suppress(OSError):
        while True:
            file.write(b"\0" * 65536)
            file.flush()
    assert_told_of_full_disk(process)
    run = wb.open_run(small_disk / CONFIG.run_id)
    assert len(run.metrics) >= 2
    assert 2 in run.rollout_steps
    assert len(run.rollouts(2).tokens)
    ballast.unlink()
    assert start(small_disk).wait() == 0
    assert fingerprint(small_disk / CONFIG.run_id) == undisturbed


def test_a_checkpoint_that_does_not_fit_is_a_full_disk_too(small_disk, undisturbed):
    assert_told_of_full_disk(start(small_disk))
    run = wb.open_run(small_disk / CONFIG.run_id)
    assert run.status["state"] == "failed" and "disk full" in run.status["reason"]
    assert run.checkpoints == {} and not list(run.path.rglob("*.partial"))
    resize(small_disk, "60m")
    assert start(small_disk).wait() == 0
    assert fingerprint(small_disk / CONFIG.run_id) == undisturbed


def test_non_finite_weights_stop_the_run_with_the_reason(tmp_path, monkeypatch):
    from workbench.training.collect import Collector

    original = Collector.collect

    def broken(self, step):
        if step == 3:
            self.policy.parameters[0].data.fill_(float("nan"))
        return original(self, step)

    monkeypatch.setattr(Collector, "collect", broken)
    with pytest.raises(FloatingPointError, match="non-finite log-prob"):
        train_run(CONFIG, tmp_path, log=lambda line: None)
    status = wb.open_run(tmp_path / CONFIG.run_id).status
    assert status["state"] == "failed"
    assert "non-finite" in status["reason"]
    monkeypatch.undo()
    train_run(CONFIG, tmp_path, log=lambda line: None)
    assert wb.open_run(tmp_path / CONFIG.run_id).status["state"] == "finished"
