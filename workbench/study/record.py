"""What claims measured, seed by seed, as a small file: verdicts where the runs are not, and seeds added to another's.

A number is known again by its claim, the claim's effect with all its arguments, the seed, and the runs it was computed
from (hashes of their configs). Where any of them has changed it no longer counts, and the runs are made anew.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from workbench.config import ConfigError
from workbench.store import Run
from workbench.store.files import write_atomic


@dataclass(frozen=True)
class Entry:
    """One claim at one seed: the `value` of its `effect` (NaN where it is undefined), the `runs` it was computed from
    as hashes of their configs, and the `commit` of the code that trained them."""

    claim: str
    effect: str
    seed: int
    runs: str
    value: float
    commit: str = ""

    @property
    def key(self) -> tuple[str, str, int, str]:
        return self.claim, self.effect, self.seed, self.runs


class Record:
    """Entries, one for each claim, effect, seed and set of runs; of two for the same the later one stays."""

    def __init__(self, entries: Iterable[Entry] = ()):
        self._entries = {entry.key: entry for entry in entries}

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self):
        return iter(self._entries.values())

    def values(self, claim: str, effect: str, runs: Mapping[int, str]) -> dict[int, float]:
        """Seed -> value, of the seeds whose `runs` are those recorded."""
        keys = {seed: (claim, effect, seed, hashes) for seed, hashes in runs.items()}
        return {seed: self._entries[key].value for seed, key in keys.items() if key in self._entries}

    def write(self, path: str | Path) -> None:
        """Replace the file `path` by these entries, in order of claim and seed."""
        text = io.StringIO()
        writer = csv.DictWriter(text, [field.name for field in fields(Entry)], lineterminator="\n")
        writer.writeheader()
        for entry in sorted(self, key=lambda entry: entry.key):
            writer.writerow(asdict(entry) | {"value": f"{entry.value:.6g}"})
        write_atomic(Path(path), lambda partial: Path(partial).write_text(text.getvalue(), encoding="utf-8"))


def read_record(path: str | Path) -> Record:
    """The record in the CSV file `path`. Raises `ConfigError` for a file that is not there or not a record."""
    try:
        with Path(path).open(encoding="utf-8", newline="") as file:
            rows = csv.DictReader(file, strict=True)
            if rows.fieldnames != [field.name for field in fields(Entry)]:
                raise ValueError(f"its columns are not {', '.join(field.name for field in fields(Entry))}")
            return Record(_entry(rows.line_num, row) for row in rows)
    except (OSError, ValueError, csv.Error) as error:
        raise ConfigError(f"record '{path}' cannot be read: {error}") from error


def commit_of(runs: Iterable[Run]) -> str:
    """The commits that trained `runs`, shortened; + marks a tree with changes of its own."""
    trees = [run.provenance.get("git") or {} for run in runs]
    named = {str(tree["commit"])[:7] + "+" * bool(tree.get("dirty")) for tree in trees if tree.get("commit")}
    return " ".join(sorted(named))


def _entry(line: int, row: Mapping[str, str]) -> Entry:
    try:
        entry = Entry(**{**row, "seed": int(row["seed"]), "value": float(row["value"])})
    except (TypeError, ValueError) as error:
        raise ValueError(f"line {line}: {error}") from error
    if math.isinf(entry.value):
        raise ValueError(f"line {line}: the value is infinite")
    return entry
