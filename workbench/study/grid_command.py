"""`python -m workbench grid`: from its arguments to a plan, an execution and a table."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from workbench.config import ConfigError, parse_overrides
from workbench.study.cells import STATES
from workbench.study.executors import Resources
from workbench.study.grid import Grid, make_grid, read_grid
from workbench.study.launch import terminated_like_interrupted
from workbench.study.running import execute, plan


def run_grid_command(
    arguments: list[str],
    log: Callable[[str], None],
    output: Path | None,
    preset: str | None,
    notebook: str | None,
    only_status: bool,
    dry_run: bool,
    only_failed: bool,
    **options: Any,
) -> bool:
    """Do what the arguments say; returns whether every cell is done (or nothing was to be executed)."""
    grid = _grid(arguments, output, preset, notebook)
    if only_status:
        log(table_text(grid))
        return True
    chosen = plan(grid, only_failed)
    log(table_text(grid))
    log(str(chosen))
    if dry_run:
        return True
    resources = Resources(options.pop("jobs"), options.pop("gpus"), options.pop("cpus"))
    executor, fail_fast = options.pop("executor"), options.pop("fail_fast")
    try:
        with terminated_like_interrupted():
            done = execute(chosen, executor, resources, fail_fast, log, **_options_of(executor, **options))
    except KeyboardInterrupt:
        log(table_text(grid))
        raise KeyboardInterrupt("the same command continues every cell where it stopped") from None
    log(table_text(grid))
    return done


def table_text(grid: Grid) -> str:
    """The grid's table as text, with a count of the states below."""
    table = grid.table()
    counts = table["state"].value_counts()
    summary = ", ".join(f"{counts[state]} {state}" for state in STATES if state in counts)
    shown = table if table["reason"].any() else table.drop(columns="reason")
    return f"{shown.to_string(index=False)}\n{summary}\n"


def _grid(arguments: list[str], output: Path | None, preset: str | None, notebook: str | None) -> Grid:
    files = [argument for argument in arguments if "=" not in argument]
    if len(files) > 1:
        raise ConfigError(f"a grid has one file, got {', '.join(files)}")
    if not arguments:
        raise ConfigError("a grid needs a file or fields to vary, such as seed=0,1,2")
    assignments = [argument for argument in arguments if "=" in argument]
    path = files[0] if files else None
    return make_grid(read_grid(path, assignments, {"preset": preset, "notebook": notebook}), output)


def _options_of(executor: str, address: str, bring_back: bool, slurm_options: tuple[str, ...], detach: bool) -> dict:
    """What the executor itself takes."""
    if executor == "ray":
        return {"address": address, "bring_back": bring_back}
    if executor == "slurm":
        return {"options": parse_overrides(slurm_options), "detach": detach}
    return {}
