"""Quick reads of a run's metrics: some of the columns, the first row, the last. Careful with what a crash left torn."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import pandas as pd
import pyarrow as pa
from pyarrow import json as arrow_json

from workbench.store.layout import Layout
from workbench.store.reader import Run

TAIL = 1 << 15
"""Bytes read first from the end of a metrics file: a few of its rows."""


def curve_table(run: Run, names: Iterable[str]) -> pd.DataFrame:
    """`step` and the metrics `names` of a run, NaN where not recorded; only these fields are parsed."""
    fields = [("step", pa.int64()), *((name, pa.float64()) for name in names)]
    path = Layout(run.path).metrics
    content = path.read_bytes() if path.exists() else b""
    content = content[: content.rfind(b"\n") + 1]  # what is being written is left out
    if not content:
        return pd.DataFrame({name: pd.Series(dtype="float64") for name, _ in fields})
    options = arrow_json.ParseOptions(explicit_schema=pa.schema(fields), unexpected_field_behavior="ignore")
    try:
        table = arrow_json.read_json(pa.BufferReader(content), parse_options=options).to_pandas()
    except pa.ArrowInvalid:  # a line torn by a crash, or a number that is none: slower, line by line
        table = run.metrics.reindex(columns=[name for name, _ in fields])
    return table.drop_duplicates("step", keep="last").sort_values("step", ignore_index=True)


def first_row(run: Run) -> dict:
    """The metrics of the first step, {} where there are none."""
    path = Layout(run.path).metrics
    if not path.exists():
        return {}
    with path.open("rb") as file:
        return _parsed(file.readline())


def last_row(run: Run) -> dict:
    """The metrics of the last step written, {} where there are none; only the end of the file is read."""
    path, tail = Layout(run.path).metrics, TAIL
    size = path.stat().st_size if path.exists() else 0
    lines = _last_lines(path, tail)
    while len(lines) < 2 and tail < size:  # a row longer than that
        tail *= 8
        lines = _last_lines(path, tail)
    return _parsed(lines[-1]) if lines else {}


def _last_lines(path: Path, tail: int) -> list[bytes]:
    """Complete lines among the last `tail` bytes; the first of them may have lost its beginning."""
    if not path.exists():
        return []
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - tail))
        return [line for line in file.read().splitlines(keepends=True) if line.endswith(b"\n")]


def _parsed(line: bytes) -> dict:
    try:
        row = json.loads(line) if line.endswith(b"\n") else {}
    except ValueError:
        return {}
    return row if isinstance(row, dict) else {}
