"""verl: the JSONL of its file logger or the lines of its console, and the JSONL files of `trainer.rollout_data_dir`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from workbench.store.importers.foreign import ForeignRun, groups, merged, storable, translated

_CONSOLE = re.compile(r"\bstep:(\d+) - (.*)")
_NUMBER = re.compile(r"^(?:np\.float\d+\(|np\.int\d+\()?([^()]+)\)?$")


def find(source: Path) -> Path | None:
    """The log in `source`, or `source` itself where it is one."""
    if source.is_file():
        return source if source.suffix in (".jsonl", ".log", ".txt", ".out") else None
    logs = [path for pattern in ("*.jsonl", "*.log") for path in sorted(source.glob(pattern))]
    return next((path for path in logs if not path.stem.isdigit()), None)


def read(source: Path, rollouts: Path | None = None) -> ForeignRun:
    """Raises `ValueError` for a log that holds no step."""
    path, run = find(source), ForeignRun("verl")
    run.metrics = merged(translated(*entry) for entry in _entries(path)) if path else []
    folder = rollouts or source
    for file in sorted(folder.glob("*.jsonl")) if folder.is_dir() else ():
        if file.stem.isdigit():
            run.sequences[int(file.stem)] = _sequences(pd.DataFrame(_lines(file)))
    if not run.metrics and not run.sequences:
        raise ValueError(f"{path or source} holds neither JSON lines nor console lines (step:1 - name:value) of verl")
    run.notes.append(
        "a step is a batch of rollouts; verl joins the clipped shares of both sides, so low and high are absent"
    )
    return run


def _entries(path: Path) -> Iterator[tuple[int, dict]]:
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        if line.startswith("{"):
            entry = _json(line)
            data = entry.get("data", entry)
            if isinstance(entry.get("step"), int) and isinstance(data, dict):
                yield entry["step"], data
        elif found := _CONSOLE.search(line):
            yield int(found[1]), _console_values(found[2])


def _console_values(text: str) -> dict[str, float]:
    values = {}
    for item in text.split(" - "):
        name, _, written = item.strip().rpartition(":")
        number = _NUMBER.match(written.strip())
        try:
            values[name] = float(number[1]) if number and name else None
        except ValueError:
            continue
    return values


def _sequences(frame: pd.DataFrame) -> pd.DataFrame:
    prompts = frame["input"].astype(str)
    out = groups(prompts).assign(prompt_text=prompts, text=frame["output"].astype(str))
    if "score" in frame:
        out["reward"] = frame["score"].astype("float32")
    if "acc" in frame:
        out["correct"] = frame["acc"].astype(float) > 0.5
    return out


def _lines(path: Path) -> list[dict]:
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return [
        {name: storable(value) if isinstance(value, str) else value for name, value in _json(line).items()}
        for line in lines
        if line.strip()
    ]


def _json(line: str) -> dict:
    """The object of a line; {} for the last line of a file that is still being written."""
    try:
        entry = json.loads(line)
    except ValueError:
        return {}
    return entry if isinstance(entry, dict) else {}
