"""What papers published, curves and tables, shipped as small JSON files with the source beside the numbers."""

import difflib
import json
from functools import cache
from pathlib import Path

import pandas as pd

from workbench.plots.whole_table import WholeTable

FOLDER = Path(__file__).parent / "published"
HEADLINE = "2511.05993-grpo-n4-entropy"
_ALSO_CALLED = {HEADLINE: "2511.05993-fig4-entropy-default-clip-n4"}
_HEADLINE_LABEL = "published 7B run, N = 4"


def published_curve(name: str = HEADLINE) -> pd.DataFrame:
    """A published curve as a data frame with `step` (int), `value` (in `attrs["unit"]`) and `label` (str).

    `attrs` holds `source`, `unit` and `note` of the file. `published_curves` lists the names. Raises ValueError naming
    the nearest curve that exists.
    """
    record = _find(name, _curves(), "curve")
    steps = record.get("step", range(1, len(record["value"]) + 1))
    frame = pd.DataFrame({"step": steps, "value": record["value"]})
    frame["label"] = record["label"]
    frame.attrs |= {key: record[key] for key in ("source", "unit", "note")}
    return frame


def published_curves() -> pd.DataFrame:
    """Every published curve: columns name, label, unit, source, steps (number of points)."""
    rows = [
        (name, record["label"], record["unit"], record["source"], len(record["value"]))
        for name, record in _curves().items()
    ]
    return pd.DataFrame(rows, columns=["name", "label", "unit", "source", "steps"])


def published_table(name: str) -> WholeTable:
    """A published table, one row per row as printed; a notebook shows it whole. `published_tables` lists the names.

    `2511.05993-table2`, `-table3` and `-table5`: columns model, final_entropy (nats, smoothed; NaN for the untrained
    model) and, in percent, avg64/<benchmark> and pass64/<benchmark>. `-table1` and `-table4`: benchmark and the
    Spearman coefficients avg64 and pass64. The others have the columns their figure or table has. `attrs` holds
    `source`, `title`, `unit` and `note`. Raises ValueError naming the nearest table that exists.
    """
    record = _find(name, _tables(), "table")
    frame = WholeTable(pd.json_normalize(record["rows"], sep="/"))
    frame.attrs |= {key: record[key] for key in ("source", "title", "unit", "note")}
    return frame


def published_tables() -> pd.DataFrame:
    """Every published table: columns name, title, unit, source."""
    rows = [(name, *(record[key] for key in ("title", "unit", "source"))) for name, record in _tables().items()]
    return pd.DataFrame(rows, columns=["name", "title", "unit", "source"])


def published_scores(name: str) -> pd.DataFrame:
    """A published table of models as `Study.scores` gives measured ones: columns arm (the model), seed, step, measure,
    value. Measures: entropy (nats, at the end of training) and, as shares, <benchmark> avg@64 and <benchmark> pass@64;
    models without a final entropy are left out. Raises ValueError like `published_table`."""
    table = published_table(name).dropna(subset="final_entropy")
    entropy = table.rename(columns={"final_entropy": "entropy"})[["model", "entropy"]]
    shares = table.drop(columns="final_entropy").set_index("model") / 100
    shares.columns = [_measure(column) for column in shares.columns]
    long = pd.concat(
        [entropy.melt("model", var_name="measure"), shares.reset_index().melt("model", var_name="measure")]
    )
    return long.rename(columns={"model": "arm"}).assign(seed=0, step=0)


def _measure(column: str) -> str:
    score, benchmark = column.split("/")
    return f"{benchmark} {score.replace('64', '@64')}"


def _find(name: str, records: dict[str, dict], kind: str) -> dict:
    if name not in records:
        near = difflib.get_close_matches(name, records, n=1, cutoff=0) or list(records)
        raise ValueError(f"there is no published {kind} {name!r}; the nearest is {near[0]!r}.")
    return records[name]


@cache
def _curves() -> dict[str, dict]:
    found = {}
    for path in sorted(FOLDER.glob("*.json")):
        content = json.loads(path.read_text(encoding="utf-8"))
        found |= {name: record | {"note": content["note"]} for name, record in content["curves"].items()}
    named = {alias: found[name] | {"label": _HEADLINE_LABEL} for alias, name in _ALSO_CALLED.items()}
    return named | found


@cache
def _tables() -> dict[str, dict]:
    found = {}
    for path in sorted((FOLDER / "tables").glob("*.json")):
        content = json.loads(path.read_text(encoding="utf-8"))
        shared = {key: content[key] for key in ("source", "note")}
        found |= {name: shared | record for name, record in content["tables"].items()}
    return found
