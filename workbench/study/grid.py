"""Grids: what to vary, expanded into cells, all of them checked before anything is computed.

A grid file is YAML:

    name: clip                     # names the grid's folder
    preset: cpu                    # or  notebook: 00_quickstart
    base: {training.steps: 80}     # the same in every cell
    vary:                          # every combination of these
      seed: [0, 1, 2]
      objective.clip_high: [0.2, 0.28]
    cells:                         # each combined with every combination above; optional
      - {methods: [grpo]}
      - {methods: [grpo, clip_cov]}

On the command line `seed=0,1,2` is a list to vary, `training.steps=80` a value of every cell. With `notebook` the
fields are that notebook's parameters instead of fields of a run's config.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from pydantic import Field

from workbench.config import ConfigError, Section, make_section
from workbench.presets import preset
from workbench.store import runs_root
from workbench.store.layout import outputs_root
from workbench.study.cells import Cell, NotebookCell, Place, RunCell, Standing, standing

NOTEBOOKS = Path("notebooks")


class GridFile(Section):
    """The content of a grid file; unknown keys are refused."""

    name: str = "grid"
    preset: str = "cpu"
    notebook: str = ""
    base: dict[str, Any] = Field(default_factory=dict)
    vary: dict[str, list[Any]] = Field(default_factory=dict)
    cells: list[dict[str, Any]] = Field(default_factory=lambda: [{}], min_length=1)


@dataclass(frozen=True)
class Grid:
    """Cells under one name; `folder` keeps the records of their executions."""

    name: str
    cells: tuple[Cell, ...]
    folder: Path

    @property
    def place(self) -> Place:
        return Place(self.folder)

    def standings(self) -> list[Standing]:
        return [standing(cell, self.place) for cell in self.cells]

    def table(self) -> pd.DataFrame:
        """One row per cell: cell, state, step, and what is varied."""
        rows = []
        for cell, stands in zip(self.cells, self.standings(), strict=True):
            step = "" if stands.step is None else f"{stands.step} of {stands.steps}"
            row = {"cell": cell.identifier, "state": stands.state, "step": step, "reason": stands.reason}
            rows.append(row | {name: _short(value) for name, value in cell.varied.items()})
        return pd.DataFrame(rows)


def read_grid(path: str | Path | None, assignments: Sequence[str] = (), overrides: Mapping | None = None) -> GridFile:
    """The grid of a YAML file and/or `key=a,b` assignments, the latter winning. Raises `ConfigError`."""
    content: dict[str, Any] = {}
    if path is not None:
        try:
            content = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise ConfigError(f"grid file '{path}' cannot be read: {str(error).splitlines()[0]}") from error
        if not isinstance(content, dict):
            raise ConfigError(f"grid file '{path}' must hold a mapping, found {type(content).__name__}")
        content.setdefault("name", Path(path).stem)
    content |= {key: value for key, value in (overrides or {}).items() if value}
    varied, same = dict(content.get("vary") or {}), dict(content.get("base") or {})
    for key, values in parse_assignments(assignments).items():
        varied.pop(key, None)
        same.pop(key, None)
        if len(values) > 1:
            varied[key] = values
        else:
            same[key] = values[0]
    return make_section(GridFile, content | {"vary": varied, "base": same})


def parse_assignments(assignments: Sequence[str]) -> dict[str, list[Any]]:
    """["seed=0,1", "methods=[grpo, clip_cov]"] -> {"seed": [0, 1], "methods": [["grpo", "clip_cov"]]}.

    Commas outside brackets separate values, each of them YAML. Raises `ConfigError`.
    """
    found = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals or not key:
            raise ConfigError(f"'{assignment}' is not of the form field=value or field=a,b,c")
        try:
            found[key.strip()] = [_number(yaml.safe_load(part)) for part in _split(text)]
        except yaml.YAMLError:
            raise ConfigError(f"'{assignment}': a value is not valid YAML; quote it") from None
    return found


def make_grid(given: GridFile, root: str | Path | None = None) -> Grid:
    """Expand `given` into cells whose results lie under `root` (by default the outputs folder) and check every one.

    Raises `ConfigError` listing every cell that cannot work, before any is executed, or a grid with a cell twice.
    """
    root = Path(root).resolve() if root else outputs_root()
    combinations = list(expand(given))
    make = _notebook_cell if given.notebook else _run_cell
    cells, problems = [], []
    for varied in combinations:
        try:
            cells.append(make(given, varied, root))
        except ValueError as error:
            problems.append(f"{_label(varied)}: {error}")
    if problems:
        raise ConfigError("\n".join([f"{len(problems)} of {len(combinations)} cells cannot work:", *problems]))
    identifiers = [cell.identifier for cell in cells]
    twice = sorted({name for name in identifiers if identifiers.count(name) > 1})
    if twice:
        raise ConfigError(f"cells occur twice, since what is varied does not change them: {', '.join(twice)}")
    return grid_of(given.name, cells, root)


def grid_of(name: str, cells: Iterable[Cell], root: Path) -> Grid:
    """A grid of these cells; its folder is named by what it holds, so that the same grid finds its records again."""
    cells = tuple(cells)
    digest = hashlib.sha256(json.dumps(sorted(cell.identifier for cell in cells)).encode()).hexdigest()[:8]
    return Grid(name, cells, root / "grids" / f"{name}-{digest}")


def expand(given: GridFile) -> Iterable[dict[str, Any]]:
    """What each cell varies: `cells` combined with every combination of `vary`."""
    for part in given.cells:
        for values in itertools.product(*given.vary.values()):
            yield part | dict(zip(given.vary, values, strict=True))


def find_notebook(name: str) -> Path:
    """A notebook by path or by name, looked for in `notebooks/` here and of the project around. Raises
    `FileNotFoundError` listing those there are."""
    folders = (NOTEBOOKS, outputs_root().parent / NOTEBOOKS)
    candidates = [Path(name), *(folder / file for folder in folders for file in (name, f"{name}.ipynb"))]
    for path in candidates:
        if path.is_file():
            return path.resolve()
    known = sorted({path.stem for folder in folders for path in folder.glob("*.ipynb")})
    raise FileNotFoundError(f"no notebook '{name}'; there are: {', '.join(known)}")


def _run_cell(given: GridFile, varied: Mapping[str, Any], root: Path) -> RunCell:
    return RunCell(preset(given.preset, given.base | varied), runs_root(root / "runs"), varied)


def _notebook_cell(given: GridFile, varied: Mapping[str, Any], root: Path) -> NotebookCell:
    from workbench.study.notebooks import check_parameters, execution_key  # papermill takes seconds

    path = find_notebook(given.notebook)
    parameters = check_parameters(path, given.base | varied)
    return NotebookCell(path, root, execution_key(path, parameters), parameters)


def _split(text: str) -> list[str]:
    """`text` at its commas, but not at those inside brackets, braces or quotes."""
    parts, depth, quote = [""], 0, ""
    for char in text:
        if quote:
            quote = "" if char == quote else quote
        elif char in "\"'":
            quote = char
        elif char in "[{(":
            depth += 1
        elif char in "]})":
            depth -= 1
        elif char == "," and depth == 0:
            parts.append("")
            continue
        parts[-1] += char
    return parts


def _number(value: Any) -> Any:
    """YAML reads 1e-4 as text; here it is a number."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _label(varied: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={_short(value)}" for name, value in varied.items()) or "the only cell"


def _short(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)
