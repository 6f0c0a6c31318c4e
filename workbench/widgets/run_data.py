"""Many runs as tables: what they are, how they differ, their curves. Quick for many runs, careful with broken ones."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import pandas as pd
import yaml

from workbench.store import Run, curve_table, first_row, last_row, list_runs, open_run

ALWAYS = ("id", "state", "step", "entropy/mean", "reward/mean", "methods", "seed")
"""Columns every run table begins with."""
HEADLINE = ("entropy/mean", "reward/mean")
_TERM = re.compile(r"(?P<field>[\w./-]+)(?P<sign>!=|>=|<=|=|>|<|~)(?P<value>.+)")


def resolve(runs=None) -> list[Run]:
    """Runs from what people pass: None (all stored), a folder of runs, a run, a run's path or id, or several of these.

    Raises ValueError when there are none, naming the remedy.
    """
    if runs is None or (
        isinstance(runs, str | Path) and not (Path(runs) / "config.yaml").exists() and Path(runs).is_dir()
    ):
        found = list_runs(runs)
    elif isinstance(runs, Run | str | Path):
        found = [runs if isinstance(runs, Run) else open_run(runs)]
    else:
        found = [run if isinstance(run, Run) else open_run(run) for run in runs]
    if not found:
        raise ValueError("there are no runs to explore; `python -m workbench demo` makes a set of them in minutes.")
    return list({run.id: run for run in found}.values())


def run_table(runs: Iterable[Run]) -> pd.DataFrame:
    """One row per run: `ALWAYS`, then every config field by its dotted name."""
    return pd.DataFrame([_row(run) for run in runs])


def _row(run: Run) -> dict:
    config = flat_config(run)
    status = run.status
    last = last_row(run)
    row = {"id": run.id, "state": status["state"], "step": status["step"]}
    row |= {name: last.get(name) for name in HEADLINE}
    return row | {"methods": config.pop("methods", None) or _tool(run), "seed": config.pop("seed", None)} | config


def _tool(run: Run) -> str:
    """In place of methods, of which an imported run has none."""
    return f"imported from {run.imported['tool']}" if run.imported else "not recorded"


def flat_config(run: Run) -> dict:
    """The config as dotted fields; `methods` as "grpo + clip_higher", its parameters as `methods.clip_higher.…`."""
    tree = yaml.load(
        (run.path / "config.yaml").read_text(encoding="utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    )
    return _flat(tree if isinstance(tree, dict) else {})


def _flat(tree: dict, prefix: str = "") -> dict:
    out = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if key == "methods" and isinstance(value, list):
            entries = [entry if isinstance(entry, dict) else {"name": entry} for entry in value]
            out[name] = " + ".join(str(entry.get("name")) for entry in entries)
            for entry in entries:
                out |= _flat({k: v for k, v in entry.items() if k != "name"}, f"methods.{entry.get('name')}.")
        elif isinstance(value, dict):
            out |= _flat(value, f"{name}.")
        else:
            out[name] = ", ".join(map(str, value)) if isinstance(value, list) else value
    return out


def varying(table: pd.DataFrame) -> list[str]:
    """Config columns in which the runs of a run table differ; `methods` and `seed` first. What cannot change a run's
    result (its name, its storage, its device) is left out."""
    fields = [name for name in table.columns if name not in ("id", "state", "step", "name", "policy.device", *HEADLINE)]
    fields = [name for name in fields if not name.startswith("storage.")]
    return [name for name in fields if table[name].astype(str).nunique() > 1]


def filter_runs(table: pd.DataFrame, query: str) -> pd.DataFrame:
    """Rows that satisfy every term of `query`: `field=value`, `!=`, `>`, `<`, `>=`, `<=`, `field~part`, or a word that
    stands in any cell. Raises ValueError naming a field that does not exist."""
    for term in query.split():
        match = _TERM.fullmatch(term)
        if match is None:
            cells = [table[name].astype(str).str.contains(term, case=False, regex=False) for name in table]
            table = table[pd.concat(cells, axis=1).any(axis=1)]
            continue
        table = table[_satisfied(table, match["field"], match["sign"], match["value"])]
    return table


def _satisfied(table: pd.DataFrame, field: str, sign: str, value: str) -> pd.Series:
    if field not in table:
        raise ValueError(f"runs have no field '{field}'; write one as it stands in the table's head.")
    column = table[field]
    if sign in ("=", "!=", "~"):
        text = column.astype(str)
        equal = text.str.contains(value, case=False, regex=False) if sign == "~" else text == value
        if sign != "~" and (number := pd.to_numeric(value, errors="coerce")) == number:
            equal |= pd.to_numeric(column, errors="coerce") == number
        return ~equal if sign == "!=" else equal
    number = pd.to_numeric(value, errors="coerce")
    if pd.isna(number):
        raise ValueError(f"'{value}' in '{field}{sign}{value}' is not a number.")
    values = pd.to_numeric(column, errors="coerce")
    return {">": values > number, "<": values < number, ">=": values >= number, "<=": values <= number}[sign]


def config_diff(table: pd.DataFrame, ids: Iterable[str]) -> pd.DataFrame:
    """Fields in which the runs `ids` of a run table differ, one row per field and one column per run."""
    rows = table.set_index("id").loc[list(ids)]
    fields = varying(rows.reset_index())
    return rows[fields].T.rename_axis("field").reset_index()


def group_labels(table: pd.DataFrame, by: str) -> dict[str, str]:
    """Run id -> label of its group: the value of column `by`, or the run itself for "run"."""
    if by == "run":
        return dict(zip(table["id"], table["id"], strict=True))
    values = table[by].astype(str)
    labels = values if by in ("methods", "name") else f"{by} " + values
    return dict(zip(table["id"], labels, strict=True))


def metric_names(runs: Iterable[Run]) -> list[str]:
    """Names of all metrics in the runs' first and last rows, the headline first."""
    names: dict[str, None] = {}
    for run in runs:
        names |= dict.fromkeys(first_row(run)) | dict.fromkeys(last_row(run))
    names.pop("step", None)
    return sorted(names, key=lambda name: (name not in HEADLINE, name))


def curves(runs: Iterable[Run], metric: str, labels: dict[str, str]) -> pd.DataFrame:
    """Long table of one metric: run, group, step, value."""
    parts = []
    for run in runs:
        table = curve_table(run, [metric]).rename(columns={metric: "value"})
        parts.append(table.assign(run=run.id, group=labels.get(run.id, run.id)))
    return pd.concat(parts, ignore_index=True)
