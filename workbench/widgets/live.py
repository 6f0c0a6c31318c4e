"""Curves that follow a run while it trains. They only read the run folder, so they can watch any run, from anywhere."""

import json
import time
from pathlib import Path

import ipywidgets
import pandas as pd
import plotly.graph_objects as go

from workbench.plots import training_curves
from workbench.store import Run
from workbench.store.liveness import HEARTBEAT

STALLED_AFTER = 3 * HEARTBEAT
"""Seconds of silence after which a run counts as stalled: two beats were missed."""


class MetricsTail:
    """Reads metrics.jsonl as it grows; each `read` costs only what was appended since the last one.

    A last line without its newline is left for the next call. A run that resumes may rewrite steps: the file is then
    shorter than before and read again from the start, and a step seen twice keeps its newest row.
    """

    def __init__(self, path: Path):
        self.path = Path(path)
        self._offset = 0
        self._rows: dict[int, dict] = {}

    def read(self) -> bool:
        """Take in new complete lines; True when there were any."""
        if not self.path.exists():
            return False
        if self.path.stat().st_size < self._offset:
            self._offset, self._rows = 0, {}
        with self.path.open("rb") as file:
            file.seek(self._offset)
            complete, newline, _ = file.read().rpartition(b"\n")
        if not newline:
            return False
        self._offset += len(complete) + 1
        rows = [_parse(line) for line in complete.splitlines()]
        self._rows |= {row["step"]: row for row in rows if row}
        return True

    @property
    def metrics(self) -> pd.DataFrame:
        """All rows so far, ordered by step."""
        return pd.DataFrame([self._rows[step] for step in sorted(self._rows)])


def state_line(status: dict, now: float | None = None) -> str:
    """One sentence on the state of a run from its status.json; `now` in unix seconds."""
    state = status.get("state", "waiting for the run to start")
    step = f"step {status['step']} of {status['steps']}" if "step" in status and "steps" in status else ""
    silence = (time.time() if now is None else now) - status.get("heartbeat", 0)
    if state == "running" and silence > STALLED_AFTER:
        return f"stalled? {step}; last sign of life {silence:.0f} s ago"
    if state == "failed":
        return f"failed at {step}: {status.get('reason') or 'no reason recorded'}"
    if state == "lost":
        return f"lost at {step}: {status.get('reason')}"
    return f"{state}, {step}" if step else state


class LiveCurves:
    """Training curves of `run_folder` that grow with the run. Display `widget`; call `poll` to bring it up to date.

    It owns no thread: whoever waits for the run calls `poll`, as `workbench.train` does. The cell that waits keeps the
    kernel from answering the browser, so the figure is plotly's own widget, which carries all it needs.
    """

    def __init__(self, run_folder: Path, reference: pd.DataFrame | None = None):
        self.folder = Path(run_folder)
        self.figure = go.FigureWidget()
        self.state = ipywidgets.Label(value=state_line({}))
        self.widget = ipywidgets.VBox([self.state, self.figure])
        self._reference = reference
        self._tail = MetricsTail(self.folder / "metrics.jsonl")

    @property
    def metrics(self) -> pd.DataFrame:
        """What was read so far, one row per step."""
        return self._tail.metrics

    def read(self) -> bool:
        """Read what is new and redraw; True if anything is."""
        grew = self._tail.read()
        if grew:
            self._draw(self._tail.metrics)
        return grew

    def poll(self) -> str:
        """Read what is new, redraw if anything is, and return the state line."""
        self.read()
        line = state_line(_read_status(self.folder))
        if line != self.state.value:
            self.state.value = line
        return line

    def _draw(self, metrics: pd.DataFrame) -> None:
        fresh = training_curves(metrics, reference=self._reference, run=self.folder.name)
        if len(fresh.data) != len(self.figure.data):  # first rows, or a metric that appeared later
            with self.figure.batch_update():
                self.figure.data = ()
                self.figure.add_traces(fresh.data)
                self.figure.update_layout(fresh.layout, overwrite=True)
                self.figure.update_layout(autosize=True)  # as wide as the cell
            return
        with self.figure.batch_update():
            for shown, new in zip(self.figure.data, fresh.data, strict=True):
                shown.x, shown.y, shown.mode = new.x, new.y, new.mode
            self.figure.layout.meta = fresh.layout.meta


def _parse(line: bytes) -> dict | None:
    """A metrics row, or None for a line torn by a crash or without a step."""
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) and isinstance(row.get("step"), int) else None


def _read_status(folder: Path) -> dict:
    return Run(folder).status if (folder / "status.json").exists() else {}
