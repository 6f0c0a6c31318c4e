"""Reads a run folder, finished or still being written, and the folder of runs. Everything comes as data frames."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import yaml

from workbench.config import RunConfig, load_config
from workbench.store.files import read_lines
from workbench.store.layout import IMPORTED, Layout, numbered, runs_root
from workbench.store.liveness import is_alive


@dataclass(frozen=True)
class StoredRollouts:
    """One step's two tables as data frames; columns as in `workbench.tables`."""

    sequences: pd.DataFrame
    tokens: pd.DataFrame


class Run:
    """A stored run. Properties read the files each time, so a run that is still training can be followed."""

    def __init__(self, path: Path):
        self.path = Path(path)
        self._layout = Layout(self.path)

    def __repr__(self) -> str:
        status = self.status
        return f"Run({self.id}: {status['state']}, step {status['step']} of {status['steps']})"

    @property
    def id(self) -> str:
        return self.path.name

    @cached_property
    def imported(self) -> dict[str, Any] | None:
        """Of a run of another tool: `tool`, `source` and `notes`; None for our own."""
        path = self.path / IMPORTED
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None

    @cached_property
    def config(self) -> RunConfig:
        """Raises `ValueError` for an imported run, which has only `settings`."""
        if self.imported:
            raise ValueError(
                f"run {self.id} was imported from {self.imported['tool']} and has no RunConfig; see settings"
            )
        return load_config(self._layout.config)

    @cached_property
    def settings(self) -> dict[str, Any]:
        """Every field of the config, or of another tool's settings, by dotted name."""
        if self.imported:
            return _flat(yaml.safe_load(self._layout.config.read_text(encoding="utf-8")) or {})
        return _flat(self.config.model_dump(mode="json"))

    @cached_property
    def provenance(self) -> dict[str, Any]:
        return json.loads(self._layout.provenance.read_text())

    @property
    def status(self) -> dict[str, Any]:
        """`state` is running, finished, interrupted, failed, or lost (its process is gone without saying so)."""
        try:
            status = json.loads(self._layout.status.read_text())
            heartbeat = self._layout.status.stat().st_mtime
        except FileNotFoundError:
            return {"state": "lost", "step": 0, "steps": None, "heartbeat": None, "reason": "it never began"}
        status["heartbeat"] = heartbeat
        if status["state"] == "running" and not is_alive(status, heartbeat):
            status |= {"state": "lost", "reason": "its process ended without a word; train the same config to continue"}
        return status

    @property
    def metrics(self) -> pd.DataFrame:
        """One row per rollout step: `step`, the metrics (see `workbench.metrics`) and `time/…` in seconds."""
        metrics = _frame(self._layout.metrics)
        timings = _frame(self._layout.timings)
        return metrics if timings.empty else metrics.merge(timings, on="step", how="left")

    @property
    def rollout_steps(self) -> list[int]:
        """Steps whose rollouts were kept."""
        return list(numbered(self._layout.rollouts, ".sequences.parquet"))

    def rollouts(self, step: int) -> StoredRollouts:
        """The two tables of one kept step. Raises `KeyError` naming the kept steps."""
        return StoredRollouts(*(self._table(step, name) for name in ("sequences", "tokens")))

    def sequences(self, step: int) -> pd.DataFrame:
        """The sequence table of one kept step alone. Raises `KeyError` naming the kept steps."""
        return self._table(step, "sequences")

    def token_columns(self, step: int, names: Sequence[str]) -> pd.DataFrame:
        """Those of the token columns `names` that a kept step has; reads these alone. Raises as `rollouts` does."""
        file = pq.ParquetFile(self._rollout(step, "tokens"))
        return file.read(columns=[name for name in names if name in file.schema_arrow.names]).to_pandas()

    def prompts(self) -> pd.DataFrame:
        """Which prompts stand in which kept step: `step`, and of `prompt_id`, `prompt_text`, `prompt` what is recorded;
        one row per step and prompt. Reads these columns alone."""
        parts = []
        for step in self.rollout_steps:
            file = pq.ParquetFile(self._layout.rollout(step, "sequences"))
            held = [name for name in ("prompt_id", "prompt_text", "prompt") if name in file.schema_arrow.names]
            parts.append(file.read(columns=held).to_pandas().drop_duplicates().assign(step=step))
        return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame({"step": []})

    def _table(self, step: int, name: str) -> pd.DataFrame:
        return pd.read_parquet(self._rollout(step, name))

    def _rollout(self, step: int, name: str) -> Path:
        if not self._layout.rollout(step, "sequences").exists():
            raise KeyError(f"run {self.id} kept no rollouts of step {step}; kept steps: {self.rollout_steps}")
        return self._layout.rollout(step, name)

    @property
    def evals(self) -> pd.DataFrame:
        """One row per evaluation sample, all sets and steps: step, set, prompt, sample, text, correct, …"""
        files = [path for paths in numbered(self._layout.evals, ".parquet").values() for path in paths]
        return pd.concat([pd.read_parquet(file) for file in files], ignore_index=True) if files else pd.DataFrame()

    @property
    def checkpoints(self) -> dict[int, Path]:
        """Checkpoint folders by step; each loads with `transformers`."""
        return {step: paths[0] for step, paths in numbered(self._layout.checkpoints).items()}


def _frame(path: Path) -> pd.DataFrame:
    rows = [json.loads(line) for line in read_lines(path)]
    frame = pd.DataFrame(rows or {"step": []}).astype("float64")  # null (nothing to average) becomes NaN
    return frame.astype({"step": "int64"})


def open_run(path: str | Path) -> Run:
    """A stored run by folder, or by id under outputs/runs. Raises `FileNotFoundError` naming what was looked for."""
    for candidate in (Path(path), runs_root() / str(path)):
        if Layout(candidate).config.exists():
            return Run(candidate)
    raise FileNotFoundError(f"no run at '{path}' (looked for config.yaml there and in {runs_root() / str(path)})")


def list_runs(root: str | Path | None = None) -> list[Run]:
    """Every run under `root` (by default outputs/runs), by name."""
    return [Run(path.parent) for path in sorted(runs_root(root).glob("*/config.yaml"))]


def runs(root: str | Path | None = None) -> pd.DataFrame:
    """One row per run: id, state, step, the last step's main metrics, and every config field as a dotted column."""
    return pd.DataFrame([_summary(run) for run in list_runs(root)])


def _summary(run: Run) -> dict[str, Any]:
    status, metrics = run.status, run.metrics
    row = {"id": run.id, "state": status["state"], "step": status["step"], "steps": status["steps"]}
    for name in ("entropy/mean", "reward/mean"):
        row[name] = metrics[name].iloc[-1] if name in metrics and len(metrics) else None
    return {**row, **run.settings, "path": str(run.path)}


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in tree.items():
        out |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return out
