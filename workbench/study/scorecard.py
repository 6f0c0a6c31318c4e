"""All claims of all papers on one card, and the one command that makes what it needs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from workbench.config import ConfigError
from workbench.report import Claims
from workbench.store import outputs_root
from workbench.study.cells import RunCell
from workbench.study.claims import claims_table, comparison_note
from workbench.study.definitions import study_names
from workbench.study.executors import Resources
from workbench.study.grid import find_notebook, grid_of
from workbench.study.notebooks import NotebookFailed, execute_notebook, executions
from workbench.study.running import execute, plan
from workbench.study.study import Study

NOTEBOOK = "30_scorecard"


def scorecard(
    scale: str = "cpu",
    seeds: Sequence[int] = (0, 1, 2),
    root: str | Path | None = None,
    output: str | Path | None = None,
) -> Claims:
    """All claims of all papers, judged on the runs there are at `scale` under `root`; nothing is trained. Where the
    notebook of a study was executed at this scale below `output`, its claims lead to that report."""
    found = [finding for name in study_names() for finding in Study(name, scale, seeds, root).findings()]
    return Claims(claims_table(found), comparison_note(found), study_reports(scale, output))


def study_reports(scale: str, output: str | Path | None = None) -> dict[str, str]:
    """Study -> address of the newest report of its notebook at `scale`, as another report names it."""
    newest: dict[str, str] = {}
    for row in executions(output).dropna(subset="report").sort_values("started").to_dict("records"):
        report = Path(row["report"])
        if row["state"] == "done" and row["parameters"].get("scale", "cpu") == scale and report.exists():
            newest[Path(row["notebook"]).stem] = f"../{report.parent.name}/{report.name}"
    return {name: newest[name] for name in study_names() if name in newest}


def all_cells(scale: str, seeds: Sequence[int], root: Path) -> list[RunCell]:
    """The runs of all studies, each once, whatever the number of studies that need it."""
    cells = {cell.output: cell for name in study_names() for cell in Study(name, scale, seeds, root).cells.values()}
    return list(cells.values())


def make_scorecard(
    scale: str,
    seeds: Sequence[int],
    output: str | Path | None = None,
    jobs: int = 0,
    reports: bool = False,
    dry_run: bool = False,
    log: Callable[[str], None] = print,
) -> Path | None:
    """Make the runs of all studies exist, execute the scorecard's notebook and return its report.

    The plan with its estimate comes first; `dry_run` ends there and returns None. With `reports` the notebook of every
    study is executed before, so that the card leads to its report. A run or a notebook that fails stops no other: its
    claims stand as not run. Raises `KeyboardInterrupt` when interrupted, with everything resumable.
    """
    output = Path(output or outputs_root()).resolve()
    cells = all_cells(scale, seeds, output / "runs")
    chosen = plan(grid_of(f"scorecard-{scale}", cells, output))
    log(str(chosen))
    if dry_run:
        return None
    if not execute(chosen, resources=Resources(jobs=jobs), log=log):
        states = zip(cells, chosen.grid.standings(), strict=True)
        left = ", ".join(cell.identifier for cell, stands in states if stands.state != "done")
        log(f"not done: {left}; their claims stand as not run, and the same command tries them again")
    parameters = {"scale": scale, "seeds": list(seeds)}
    for name in study_names() if reports else ():
        try:
            log(f"report: {execute_notebook(find_notebook(name), parameters | {'jobs': jobs}, output).report}")
        except NotebookFailed as failure:
            log(f"{name} failed: {failure}")
    return execute_notebook(find_notebook(NOTEBOOK), parameters, output).report


def parse_seeds(text: str) -> list[int]:
    """Numbers from text such as 0,1,2, each once. Raises `ConfigError` for anything else."""
    try:
        return list(dict.fromkeys(int(part) for part in text.split(",")))
    except ValueError:
        raise ConfigError(f"seeds are '{text}'; write whole numbers separated by commas, as in 0,1,2") from None
