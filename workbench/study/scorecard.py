"""All claims of all papers on one card, and the one command that makes what it needs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from workbench.config import ConfigError
from workbench.report import Claims
from workbench.store import outputs_root
from workbench.study.cells import RunCell
from workbench.study.claims import Finding, claims_table, comparison_note
from workbench.study.definitions import claims, study_names
from workbench.study.executors import Resources
from workbench.study.grid import find_notebook, grid_of
from workbench.study.notebooks import NotebookFailed, execute_notebook, executions
from workbench.study.record import Record, read_record
from workbench.study.running import execute, plan
from workbench.study.study import Study

NOTEBOOK = "30_scorecard"


def scorecard(
    scale: str = "cpu",
    seeds: Sequence[int] = (0, 1, 2),
    root: str | Path | None = None,
    output: str | Path | None = None,
    record: str | Path = "",
) -> Claims:
    """All claims of all papers, judged on the runs there are at `scale` under `root`, and for seeds without them on the
    numbers in the file `record`; nothing is trained. Where the notebook of a study was executed at this scale below
    `output`, its claims lead to that report. Raises `ConfigError` for a record that cannot be read."""
    known = read_record(find_record(record)) if record else Record()
    found = [finding for name in study_names() for finding in Study(name, scale, seeds, root).findings(known)]
    note = " ".join(filter(None, [comparison_note(found), _from_record(found, record)]))
    return Claims(claims_table(found), note, study_reports(scale, output))


def find_record(record: str | Path) -> Path:
    """`record` as seen from here or from a folder above, as a notebook's kernel starts in the notebook's."""
    here = Path.cwd()
    return next((found for folder in (here, *here.parents) if (found := folder / record).exists()), Path(record))


def _from_record(found: Iterable[Finding], record: str | Path) -> str:
    """How many of the numbers are not of runs here."""
    recorded, total = (sum(counts) for counts in zip(*((f.recorded, len(f.seeds)) for f in found), strict=True))
    return f"{recorded} of the {total} numbers per seed are those recorded in {Path(record).name}." if recorded else ""


def study_reports(scale: str, output: str | Path | None = None) -> dict[str, str]:
    """Study -> address of the newest report of its notebook at `scale`, as another report names it."""
    newest: dict[str, str] = {}
    for row in executions(output).dropna(subset="report").sort_values("started").to_dict("records"):
        report = Path(row["report"])
        if row["state"] == "done" and row["parameters"].get("scale", "cpu") == scale and report.exists():
            newest[Path(row["notebook"]).stem] = f"../{report.parent.name}/{report.name}"
    return {name: newest[name] for name in study_names() if name in newest}


def needed_cells(studies: Iterable[Study], record: Record) -> list[RunCell]:
    """The runs that claims need for what is not recorded, each once, whatever the number of claims that need it."""
    cells = [
        study.cells[arm, seed]
        for study in studies
        for claim in claims(study.name)
        for seed in set(study.seeds) - set(study.recorded(claim, record))
        for arm in claim.arms
    ]
    return list({cell.output: cell for cell in cells}.values())


def make_scorecard(
    scale: str,
    seeds: Sequence[int],
    output: str | Path | None = None,
    jobs: int = 0,
    record: Path | None = None,
    reports: bool = False,
    dry_run: bool = False,
    log: Callable[[str], None] = print,
) -> Path | None:
    """Make the runs that claims need exist, execute the scorecard's notebook and return its report.

    The plan with its estimate comes first; `dry_run` ends there and returns None. Numbers in the file `record` are not
    measured again, and what is measured is added to it. With `reports` the notebook of every study is executed before,
    so that the card leads to its report. A run or a notebook that fails stops no other: its claims stand as not run.
    Raises `ConfigError` for a record that cannot be read, and `KeyboardInterrupt` when interrupted, with everything
    resumable.
    """
    output = Path(output or outputs_root()).resolve()
    studies = [Study(name, scale, seeds, output / "runs") for name in study_names()]
    known = read_record(record) if record and record.exists() else Record()
    cells = needed_cells(studies, known)
    chosen = plan(grid_of(f"scorecard-{scale}", cells, output))
    log(str(chosen))
    if dry_run:
        return None
    if not execute(chosen, resources=Resources(jobs=jobs), log=log):
        states = zip(cells, chosen.grid.standings(), strict=True)
        left = ", ".join(cell.identifier for cell, stands in states if stands.state != "done")
        log(f"not done: {left}; their claims stand as not run, and the same command tries them again")
    if record:
        Record([*known, *(entry for study in studies for entry in study.entries())]).write(record)
    parameters: dict[str, Any] = {"scale": scale, "seeds": list(seeds)}
    for name in study_names() if reports else ():
        try:
            log(f"report: {execute_notebook(find_notebook(name), parameters | {'jobs': jobs}, output).report}")
        except NotebookFailed as failure:
            log(f"{name} failed: {failure}")
    parameters["record"] = str(record or "")
    return execute_notebook(find_notebook(NOTEBOOK), parameters, output).report


def parse_seeds(text: str) -> list[int]:
    """Numbers from text such as 0,1,2, each once. Raises `ConfigError` for anything else."""
    try:
        return list(dict.fromkeys(int(part) for part in text.split(",")))
    except ValueError:
        raise ConfigError(f"seeds are '{text}'; write whole numbers separated by commas, as in 0,1,2") from None
