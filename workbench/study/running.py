"""A grid from plan to result: what there is to do, how long it may take, and the table of how every cell ended."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from workbench.config import RunConfig
from workbench.store.reader import list_runs
from workbench.study.cells import RERUN, Cell, NotebookCell, RunCell
from workbench.study.executors import Resources, run_local, run_ray, run_slurm
from workbench.study.grid import Grid

EXECUTORS = {"local": run_local, "ray": run_ray, "slurm": run_slurm}


@dataclass(frozen=True)
class Plan:
    """What executing a grid would do: the cells `to_do`, and `seconds` one after another for those whose like was
    executed here before; `unknown` counts the others."""

    grid: Grid
    to_do: tuple[Cell, ...]
    seconds: float
    unknown: int

    def __str__(self) -> str:
        done = len(self.grid.cells) - len(self.to_do)
        left = f", {done} of them left alone" if done else ""
        return (
            f"grid {self.grid.name}: {len(self.grid.cells)} cells{left}, {len(self.to_do)} to execute; {self._time()}"
        )

    def _time(self) -> str:
        known = len(self.to_do) - self.unknown
        if not self.to_do:
            return "nothing to do"
        if not known:
            return "no estimate: nothing like them was executed here yet"
        total = self.seconds * len(self.to_do) / known
        return f"about {duration(total)} one after another, by what the like took here" + (
            f" ({self.unknown} cells unlike any before are taken as average)" if self.unknown else ""
        )


def plan(grid: Grid, only_failed: bool = False) -> Plan:
    """Cells that are not done (or, `only_failed`, those that failed, were killed or lost), and an estimate."""
    wanted = [
        cell
        for cell, stands in zip(grid.cells, grid.standings(), strict=True)
        if (stands.state in RERUN if only_failed else stands.state != "done")
    ]
    paces = run_paces(next((cell.root for cell in wanted if isinstance(cell, RunCell)), None))
    times = [_estimate(cell, paces) for cell in wanted]
    known = [seconds for seconds in times if seconds is not None]
    return Plan(grid, tuple(wanted), sum(known), len(times) - len(known))


def execute(
    chosen: Plan,
    executor: str = "local",
    resources: Resources | None = None,
    fail_fast: bool = False,
    log: Callable[[str], None] = print,
    **options,
) -> bool:
    """Execute the plan's cells and return whether all of the grid's cells are done.

    `executor`: local, ray or slurm; `options` go to it. Every cell that ends is reported in one line. Raises
    `KeyboardInterrupt` when interrupted, with everything resumable.
    """
    grid, started, ended = chosen.grid, time.monotonic(), []

    def report(cell: Cell, error: BaseException | None) -> None:
        ended.append(cell)
        stands = grid.standings()[grid.cells.index(cell)]
        reason = str(error) if error else stands.reason
        after = duration(time.monotonic() - started)
        why = f" ({reason})" if reason else ""
        log(f"{len(ended)}/{len(chosen.to_do)}  {cell.identifier}: {stands.state}{why}, {after}")

    if chosen.to_do:
        grid.folder.mkdir(parents=True, exist_ok=True)
        EXECUTORS[executor](chosen.to_do, grid.place, report, resources or Resources(), fail_fast, **options)
    return all(stands.state == "done" for stands in grid.standings())


def run_paces(root: Path | None) -> dict[tuple, float]:
    """Median seconds per rollout step of the stored runs of our own, by what determines the work of a step."""
    paces: dict[tuple, list[float]] = {}
    stored = list_runs(root) if root else []
    for run in (run for run in stored if not run.imported):
        metrics = run.metrics
        if "time/step" in metrics and metrics["time/step"].notna().any():
            paces.setdefault(work_of(run.config), []).append(float(metrics["time/step"].median()))
    return {work: median(values) for work, values in paces.items()}


def work_of(config: RunConfig) -> tuple:
    """What determines how long a rollout step takes: model, task, batch, updates and device."""
    rollout, training = config.rollout, config.training
    return (
        config.policy,
        config.task.name,
        rollout.prompts,
        rollout.samples,
        rollout.max_new_tokens,
        training.updates_per_rollout,
    )


def duration(seconds: float) -> str:
    """Seconds in words: 42 s, 3 min, 2.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _estimate(cell: Cell, paces: dict[tuple, float]) -> float | None:
    """Seconds of what is left of a cell, None if nothing like it was executed yet."""
    if isinstance(cell, RunCell):
        pace, stands = paces.get(work_of(cell.config)), cell.own_standing()
        return None if pace is None else pace * (cell.config.training.steps - (stands.step or 0 if stands else 0))
    return _notebook_seconds(cell)


def _notebook_seconds(cell: NotebookCell) -> float | None:
    """Median wall time of finished executions of the same notebook."""
    times = []
    for path in cell.output.parent.glob("*/manifest.json"):
        manifest = json.loads(path.read_text())
        if manifest.get("state") == "done":
            times.append(manifest["ended"] - manifest["started"])
    return median(times) if times else None
