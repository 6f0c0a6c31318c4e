"""Writes a run folder. One process at a time holds it; whatever is killed mid-way, the folder stays readable."""

from __future__ import annotations

import contextlib
import json
import math
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock, Timeout
from torch import Tensor

from workbench.config import RunConfig
from workbench.store.files import PARTIAL, append_line, read_lines, remove, write_atomic, write_json, write_text
from workbench.store.layout import Layout, numbered
from workbench.store.liveness import beating, this_process
from workbench.store.provenance import provenance
from workbench.tables import Rollouts, Table


class RunLocked(RuntimeError):
    """Another process is training this run."""


class RunWriter:
    """Use as a context manager: takes the run's lock on entry, releases it on exit (a killed process releases it too).

    Raises `RunLocked` if another process still holds the run after `wait` seconds.
    """

    def __init__(self, config: RunConfig, root: Path, wait: float = 0.0):
        self.config = config
        self.layout = Layout(Path(root) / config.run_id)
        self._lock = FileLock(self.layout.lock, timeout=wait)
        self._held = contextlib.ExitStack()

    def __enter__(self) -> RunWriter:
        self.layout.root.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire()
        except Timeout:
            status = json.loads(self.layout.status.read_text()) if self.layout.status.exists() else {}
            owner = f"process {status.get('pid', '?')} on {status.get('host', 'this machine')}"
            raise RunLocked(
                f"run {self.config.run_id} is being trained by {owner}; wait for it, stop it, or change the config"
            ) from None
        self._held.enter_context(beating(self.layout.status))  # a long step is not a dead one
        return self

    def __exit__(self, *_exception) -> None:
        self._held.close()
        self._lock.release()

    def begin(self) -> None:
        """Write what identifies the run, once."""
        if not self.layout.config.exists():
            write_json(self.layout.provenance, provenance(self.config))
            write_text(self.layout.config, self.config.to_yaml())

    def status(self, state: str, step: int, reason: str | None = None) -> None:
        """state: running, finished, interrupted or failed. The file's modification time is the heartbeat."""
        content = {
            "state": state,
            "step": step,
            "steps": self.config.training.steps,
            **this_process(),
            "reason": reason,
        }
        write_json(self.layout.status, content)

    def metrics(self, values: dict[str, float]) -> None:
        append_line(self.layout.metrics, _json_line(values))

    def timings(self, values: dict[str, float]) -> None:
        append_line(self.layout.timings, _json_line(values))

    def rollouts(self, step: int, rollouts: Rollouts, pieces: list[str]) -> None:
        """Both tables of a step; `pieces[i]` is the text of token id i."""
        self._tables(self.layout.rollouts, step, rollouts, pieces)

    def non_finite(self, step: int, rollouts: Rollouts, pieces: list[str]) -> None:
        """The batch in which `step` failed on a number that is not finite; training on does not remove it."""
        if "prompt_text" not in rollouts.sequences:
            texts = ["".join(pieces[i] for i in prompt.tolist()) for prompt in rollouts.prompts]
            rollouts = rollouts.with_sequences(prompt_text=[texts[i] for i in rollouts.sequences.prompt.tolist()])
        self._tables(self.layout.non_finite, step, rollouts, pieces)

    def _tables(self, folder: Path, step: int, rollouts: Rollouts, pieces: list[str]) -> None:
        ordered = _with_pieces(rollouts.tokens, pieces)
        # Tokens first: a reader takes a step as present when its sequences are.
        for name, table in (("tokens", ordered), ("sequences", rollouts.sequences)):
            write_table(self.layout.tables(folder, step, name), table)

    def evaluation(self, step: int, name: str, samples: Table) -> None:
        write_table(self.layout.evaluation(step, name), samples)

    def rewind(self, step: int) -> None:
        """Forget everything after `step`, so that training continues from its checkpoint as if never interrupted."""
        for path in (self.layout.metrics, self.layout.timings):
            kept = [line for line in read_lines(path) if json.loads(line)["step"] <= step]
            if path.exists():
                write_text(path, "".join(line + "\n" for line in kept))
        for folder in (self.layout.rollouts, self.layout.evals, self.layout.checkpoints):
            for number, paths in numbered(folder).items():
                for path in paths if number > step else ():
                    remove(path)
            for path in folder.glob(f"*{PARTIAL}") if folder.is_dir() else ():
                remove(path)


class SilentWriter(RunWriter):
    """What the other ranks of a run write: nothing."""

    def __enter__(self) -> RunWriter:
        return self

    def __exit__(self, *_exception) -> None:
        pass

    def _nothing(self, *_arguments, **_named) -> None:
        pass

    begin = status = metrics = timings = rollouts = non_finite = evaluation = rewind = _nothing


def _with_pieces(tokens: Table, pieces: list[str]) -> Table:
    """Every column of token numbers followed by their texts; the first columns say which token it is."""
    columns = {"sequence": tokens.sequence, "position": tokens.position}
    for name in ("token", *(name for name in tokens if name.endswith("_token"))):
        columns[name] = tokens[name]
        columns[name.removesuffix("token") + "piece"] = [pieces[i] if i >= 0 else "" for i in tokens[name].tolist()]
    return Table(**columns | {name: tokens[name] for name in tokens if name not in columns})


def write_table(path: Path, table: Table) -> None:
    """A table as Parquet (zstd)."""
    columns = {name: column.cpu().numpy() if isinstance(column, Tensor) else column for name, column in table.items()}
    write_atomic(path, lambda partial: pq.write_table(pa.table(columns), partial, compression="zstd"))


def _json_line(values: dict[str, float]) -> str:
    """Strict JSON: NaN (nothing to average) becomes null."""
    clean = {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in values.items()}
    return json.dumps(clean, allow_nan=False)
