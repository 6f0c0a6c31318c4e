"""SQL over all runs: DuckDB, in memory, over the files as they lie."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pandas as pd

from workbench.store.layout import runs_root
from workbench.store.reader import runs

VIEWS = {
    "metrics": ("read_json", "*/metrics.jsonl", "format='newline_delimited'"),
    "timings": ("read_json", "*/timings.jsonl", "format='newline_delimited'"),
    "sequences": ("read_parquet", "*/rollouts/*.sequences.parquet", "union_by_name=true"),
    "tokens": ("read_parquet", "*/rollouts/*.tokens.parquet", "union_by_name=true"),
    "evals": ("read_parquet", "*/evals/*.parquet", "union_by_name=true"),
}


def sql(query: str, root: str | Path | None = None) -> pd.DataFrame:
    """Run a query over the views `runs, metrics, timings, sequences, tokens, evals` of all runs under `root`, or else
    outputs/runs.

    Every view has `run` (the run's id); sequences and tokens have `step`. Quote names with a slash:
    `select run, max("entropy/mean") from metrics group by run`.
    """
    connection = duckdb.connect()
    folder = str(runs_root(root).resolve())
    connection.register("runs", runs(root).rename(columns={"id": "run"}))
    for name, (function, pattern, option) in VIEWS.items():
        if not any(Path(folder).glob(pattern)):
            continue
        run = f"split_part(substr(filename, {len(folder) + 2}), '/', 1)"
        step = (
            ""
            if name in ("metrics", "timings", "evals")
            else ", cast(regexp_extract(filename, '(\\d+)\\.', 1) as int) as step"
        )
        glob = f"{folder}/{pattern}".replace("'", "''")
        connection.execute(
            f"create view {name} as select {run} as run{step}, * exclude (filename) "
            f"from {function}('{glob}', filename=true, {option})"
        )
    return connection.execute(query).df()
