"""From a foreign log to a run folder."""

from __future__ import annotations

import hashlib
import json
import math
import re
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from workbench.store.files import write_atomic, write_json
from workbench.store.importers import tensorboard, trl, verl, wandb_offline
from workbench.store.importers.foreign import ForeignRun, storable
from workbench.store.layout import IMPORTED, Layout, runs_root
from workbench.store.liveness import this_process

KINDS = {"trl": trl, "wandb": wandb_offline, "tensorboard": tensorboard, "verl": verl}
"""Readers by tool, in the order in which they are tried on a source that does not say what it is."""


def import_run(
    source: str | Path,
    kind: str | None = None,
    name: str | None = None,
    root: str | Path | None = None,
    rollouts: str | Path | None = None,
) -> Path:
    """Write the run logged at `source` (a file or folder) as a run folder under `root` and return that.

    `kind`: trl, verl, wandb or tensorboard; found out if not given. `rollouts`: a folder of TRL's completions or verl's
    rollout dumps that lies elsewhere. Importing the same source again replaces its folder. Raises `FileNotFoundError`
    if there is no source, `ValueError` if it is none of these or holds nothing.
    """
    source = Path(source)
    if not source.exists():
        raise FileNotFoundError(f"there is nothing at '{source}' to import")
    kind = kind or next((tool for tool, reader in KINDS.items() if reader.find(source)), None)
    if kind is None:
        raise ValueError(
            f"'{source}' is not recognised: expected trainer_state.json (TRL), a JSONL or console log (verl), "
            "a .wandb file or TensorBoard event files; say which with --from"
        )
    run = KINDS[kind].read(source, Path(rollouts) if rollouts else None)
    digest = hashlib.sha256(f"{kind} {source.resolve()}".encode()).hexdigest()[:8]
    label = re.sub(r"[^A-Za-z0-9._-]+", "-", name or f"{kind}-{source.resolve().stem}").strip("-.")[:60] or kind
    folder = runs_root(root) / f"{label}-{digest}"
    write_atomic(folder, lambda partial: _write(Layout(partial), run, source))
    return folder


def _write(layout: Layout, run: ForeignRun, source: Path) -> None:
    layout.rollouts.mkdir(parents=True)
    steps = [row["step"] for row in run.metrics] or list(run.sequences)
    layout.config.write_text(yaml.safe_dump(_plain(run.settings), allow_unicode=True), encoding="utf-8")
    about = {"tool": run.tool, "source": str(source.resolve()), "notes": run.notes}
    write_json(layout.root / IMPORTED, about)
    write_json(layout.provenance, about | {"imported": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())})
    ended = {"state": "finished", "step": int(max(steps)), "steps": int(max(steps)), "reason": None}
    write_json(layout.status, ended | this_process())
    timed = [{"step": row["step"], "time/step": row["time/step"]} for row in run.metrics if "time/step" in row]
    for path, rows in ((layout.metrics, run.metrics), (layout.timings, timed)):
        path.write_text("".join(_line(row, path == layout.metrics) for row in rows), encoding="utf-8")
    for step, sequences in run.sequences.items():
        # No tokens were recorded; their table is there, empty, so that readers find both.
        pq.write_table(pa.table({"sequence": pa.array([], pa.int64())}), layout.rollout(step, "tokens"))
        sequences.to_parquet(layout.rollout(step, "sequences"), index=False)


def _line(row: dict[str, float], metrics: bool) -> str:
    clean = {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in row.items()
        if not (metrics and name == "time/step")
    }
    return json.dumps(clean, allow_nan=False) + "\n"


def _plain(settings: dict) -> dict:
    """Settings as JSON and UTF-8 can hold them."""
    return json.loads(storable(json.dumps(settings, default=str, ensure_ascii=False)))
