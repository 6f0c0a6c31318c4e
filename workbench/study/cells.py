"""Cells of a grid: one training run or one notebook execution each, as a command, and how each of them stands.

A cell is executed by `execute_cell` in whatever process an executor gives it: it starts the command as a child, keeps
its output and writes down how it ended. How a cell stands is read from that record and from what the child itself
wrote (a run's status.json, a notebook's manifest.json), never from a notebook's metadata.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from workbench.config import RunConfig
from workbench.store.files import write_json
from workbench.store.liveness import beating, is_alive, this_process
from workbench.store.reader import Run
from workbench.study.launch import PARENT_VARIABLE, stop_child

STATES = ("queued", "running", "done", "interrupted", "failed", "killed", "lost")
"""interrupted: stopped on request; killed: ended by a signal; lost: ended without a word. All of them are resumable."""
RERUN = ("failed", "killed", "lost")
WAIT_FOR_OTHERS = 24 * 3600.0
"""Seconds a cell waits for another process that trains the same run already."""
STOPPED = (130, -signal.SIGINT)
"""Exit codes of a child that was asked to stop; the latter when it was still starting."""
POLL_SECONDS = 0.1
PROGRAM = (sys.executable, "-m", "workbench")


@dataclass(frozen=True)
class Standing:
    """How a cell stands: one of `STATES`, the step it reached of how many (None where there are no steps), and why."""

    state: str
    step: int | None = None
    steps: int | None = None
    reason: str = ""


@dataclass(frozen=True)
class RunCell:
    """One training run; `varied` is what tells it from the grid's other cells."""

    config: RunConfig
    root: Path
    varied: Mapping[str, Any] = field(default_factory=dict)

    @property
    def identifier(self) -> str:
        return self.config.run_id

    @property
    def output(self) -> Path:
        """The folder the cell's result lies in."""
        return self.root / self.config.run_id

    def command(self, folder: Path) -> list[str]:
        """What a child process executes; `folder` is for what it needs to read."""
        path = folder / "config.yaml"
        path.write_text(self.config.to_yaml(), encoding="utf-8")
        return ["train", "--config", str(path), "--root", str(self.root), "--wait", str(WAIT_FOR_OTHERS)]

    def own_standing(self) -> Standing | None:
        """What the run's folder says; None where there is none yet."""
        if not (self.output / "status.json").exists():
            return None
        status = Run(self.output).status
        state = "done" if status["state"] == "finished" else status["state"]
        return Standing(state, status["step"], status["steps"], status.get("reason") or "")


@dataclass(frozen=True)
class NotebookCell:
    """One execution of a notebook; `varied` are its parameters, `key` names the execution (see `execution_key`)."""

    notebook: Path
    root: Path
    key: str
    varied: Mapping[str, Any] = field(default_factory=dict)

    @property
    def identifier(self) -> str:
        return f"{self.notebook.stem}-{self.key}"

    @property
    def output(self) -> Path:
        return self.root / "notebooks" / self.notebook.stem / self.key

    def command(self, folder: Path) -> list[str]:
        path = folder / "parameters.json"
        path.write_text(json.dumps(dict(self.varied)), encoding="utf-8")
        return ["notebook", str(self.notebook), "--parameters-file", str(path), "--output", str(self.root)]

    def own_standing(self) -> Standing | None:
        try:
            manifest = json.loads((self.output / "manifest.json").read_text())
            heartbeat = (self.output / "manifest.json").stat().st_mtime
        except (OSError, ValueError):
            return None
        state, reason = manifest["state"], manifest.get("reason") or ""
        if state == "running" and not is_alive(manifest, heartbeat):
            return Standing("lost", reason="the process that executed it ended without a word")
        return Standing(state, reason=reason)


Cell = RunCell | NotebookCell


@dataclass(frozen=True)
class Place:
    """Where a cell is executed: `folder` keeps its record and its log, `environment` is added to the child's."""

    folder: Path
    environment: Mapping[str, str] = field(default_factory=dict)

    def of(self, cell: Cell) -> Path:
        return self.folder / cell.identifier


def spawn(arguments: Sequence[str], log: Path, environment: Mapping[str, str]) -> subprocess.Popen:
    """Start `python -m workbench` with `arguments` in a process of its own, its output added to the file `log`."""
    with log.open("ab") as output:
        return subprocess.Popen(
            [*PROGRAM, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**environment, PARENT_VARIABLE: str(os.getpid())},
            start_new_session=True,  # an interrupt of the terminal reaches it once, through us
        )


def execute_cell(cell: Cell, place: Place, stopped: Callable[[], bool] = lambda: False, start: Callable = spawn) -> int:
    """Execute `cell` in a child process and return its exit code (0: done; negative: killed by that signal).

    The child's output goes to `log.txt` of the cell's folder, `record.json` says when it ran, where and how it ended.
    On KeyboardInterrupt, or once `stopped()` is true, the child is asked to stop at its next step. `start` makes the
    child: `spawn`, or `WarmProcess.start`.
    """
    folder = place.of(cell)
    folder.mkdir(parents=True, exist_ok=True)
    record = {"cell": cell.identifier, "varied": dict(cell.varied), **this_process(), "started": time.time()}
    write_json(folder / "record.json", record)
    with beating(folder / "record.json"):
        environment = {**os.environ, "PYTHONUNBUFFERED": "1", **place.environment}
        child = start(cell.command(folder), folder / "log.txt", environment)
        try:
            while child.poll() is None and not stopped():
                time.sleep(POLL_SECONDS)
        finally:
            stop_child(child)
            write_json(folder / "record.json", record | {"ended": time.time(), "code": child.returncode})
    return child.returncode


def standing(cell: Cell, place: Place) -> Standing:
    """How `cell` stands now, from what it wrote itself and from the record of its last execution."""
    own, record = cell.own_standing(), _record(place.of(cell))
    if record is None or (own is not None and own.state in ("done", "running")):
        return own or Standing("queued")
    step, steps = (own.step, own.steps) if own else (None, None)
    if "code" not in record and is_alive(record, (place.of(cell) / "record.json").stat().st_mtime):
        return Standing("running", step, steps)
    if record.get("code", 0) < 0 and record["code"] != -signal.SIGINT:
        name = signal.Signals(-record["code"]).name
        return Standing("killed", step, steps, f"killed by {name}{_memory(name)}")
    if own is not None:
        return own
    if "code" not in record:
        return Standing("lost", reason="the process that executed it ended without a word")
    reason = last_line(place.of(cell) / "log.txt") or f"exit code {record['code']}"
    return Standing("interrupted" if record["code"] in STOPPED else "failed", reason=reason)


def _memory(name: str) -> str:
    return ", most likely for want of memory" if name == "SIGKILL" else ""


def _record(folder: Path) -> dict | None:
    try:
        return json.loads((folder / "record.json").read_text())
    except (OSError, ValueError):
        return None


def last_line(log: Path) -> str:
    """The last line of a log that says something."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
