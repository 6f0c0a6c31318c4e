"""Children forked from a process that has imported everything: what they do, and how they end, is what a process of
their own would do."""

import os
import signal
import sys
import time

import psutil
import pytest

import workbench as wb
from workbench.store import Run
from workbench.study.cells import RunCell, spawn
from workbench.study.warm import WarmProcess

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere children are spawned")
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}


@pytest.fixture(scope="module")
def warm():
    with WarmProcess(ENVIRONMENT) as process:
        yield process


def cell(root, **overrides):
    fields = {"training.steps": 3, "optimiser.warmup_updates": 0, "evaluation.sets": []}
    return RunCell(wb.preset("smoke", fields | overrides), root)


def test_a_run_is_the_one_a_process_of_its_own_would_train(warm, tmp_path):
    made = {}
    for name, start in (("forked", warm.start), ("spawned", spawn)):
        folder = tmp_path / name
        folder.mkdir()
        own = cell(folder)
        child = start(own.command(folder), folder / "log.txt", ENVIRONMENT)
        assert child.wait(120) == child.poll() == child.returncode == 0
        made[name] = (own.output / "metrics.jsonl").read_bytes()
        assert f"run {own.identifier} is finished" in (folder / "log.txt").read_text()
    assert made["forked"] == made["spawned"]


def test_children_compute_with_as_many_threads_as_they_are_told(tmp_path):
    own, environment = cell(tmp_path, **{"training.steps": 1}), ENVIRONMENT | {"OMP_NUM_THREADS": "2"}
    with WarmProcess(environment) as two:
        child = two.start(own.command(tmp_path), tmp_path / "log.txt", environment)
        assert child.wait(120) == 0
    assert Run(own.output).provenance["threads"] == 2


def test_exit_codes_and_what_was_said_come_back(warm, tmp_path):
    log = tmp_path / "log.txt"
    bad = warm.start(["train", "--preset", "nonsense"], log, ENVIRONMENT)
    good = warm.start(["methods"], tmp_path / "other.txt", ENVIRONMENT)
    assert bad.wait(60) == 1 and good.wait(60) == 0
    assert "unknown preset 'nonsense'" in log.read_text() and "clip_higher" in (tmp_path / "other.txt").read_text()


def test_children_are_stopped_and_killed_like_any(warm, tmp_path):
    own = cell(tmp_path, **{"training.steps": 4000})
    for number, code, state in ((signal.SIGINT, 130, "interrupted"), (signal.SIGKILL, -9, "lost")):
        child = warm.start(own.command(tmp_path), tmp_path / "log.txt", ENVIRONMENT)
        wait_until(lambda: own.own_standing() is not None and own.own_standing().state == "running")
        child.send_signal(number)
        assert child.wait(60) == code and own.own_standing().state == state
        child.kill()  # of one that has ended it does nothing


def test_children_stop_when_who_asked_for_them_is_gone(tmp_path):
    own = cell(tmp_path, **{"training.steps": 4000})
    warm = WarmProcess(ENVIRONMENT)
    child = warm.start(own.command(tmp_path), tmp_path / "log.txt", ENVIRONMENT)
    wait_until(lambda: own.own_standing() is not None and own.own_standing().state == "running")
    process = psutil.Process(child.pid)
    warm.__exit__()
    process.wait(60)
    assert own.own_standing().state == "interrupted"
    with pytest.raises(RuntimeError, match="the process that starts runs has ended"):
        warm.start(["methods"], tmp_path / "log.txt", ENVIRONMENT)


def wait_until(condition, seconds=120):
    for _ in range(seconds * 10):
        if condition():
            return
        time.sleep(0.1)
    raise AssertionError("it did not happen in time")
