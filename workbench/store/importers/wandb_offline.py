"""W&B offline runs: the `run-<id>.wandb` file of a folder `offline-run-…`.

The file is a LevelDB log of protocol buffers. W&B's package defines the buffers and no longer reads the log in Python,
so the framing is read here.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

from workbench.store.importers.foreign import STEP_NAMES, ForeignRun, merged, translated

_FILE_HEADER = struct.pack("<4sHB", b":W&B", 0xBEE1, 0)
_FRAME = struct.Struct("<IHB")  # checksum of what follows it, length, and which part of a record this is
_BLOCK = 32768
_WHOLE, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4


def find(source: Path) -> Path | None:
    if source.suffix == ".wandb":
        return source
    return next(iter(sorted(source.rglob("*.wandb"))), None) if source.is_dir() else None


def read(source: Path, rollouts: Path | None = None) -> ForeignRun:
    """Needs the package wandb (requirements-extras.txt). Raises `ValueError` for a file without history."""
    try:
        from wandb.proto import wandb_internal_pb2
    except ImportError as error:
        raise ValueError("reading W&B runs needs the package wandb; pip install -r requirements-extras.txt") from error
    path, run, rows = find(source), ForeignRun("wandb"), []
    for data in records(path.read_bytes(), path):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        kind = record.WhichOneof("record_type")
        if kind == "history":
            rows.append(_values(record.history.item))
        elif kind == "run":
            run.settings |= _values(record.run.config.update)
        elif kind == "config":
            run.settings |= _values(record.config.update)
    run.settings.pop("_wandb", None)
    run.metrics = merged(translated(_step(row), row) for row in rows)
    if not run.metrics:
        raise ValueError(f"{path} has no history yet")
    run.notes.append("tables and media of W&B are not imported; give their files with --rollouts")
    return run


def records(content: bytes, path: Path) -> Iterator[bytes]:
    """The records of a log; one that was cut off at the end of the file is left out. Raises `ValueError` for a file
    that is no such log or is damaged."""
    if not content.startswith(_FILE_HEADER):
        raise ValueError(f"{path} is not a W&B run file")
    at, parts = len(_FILE_HEADER), []
    while at + _FRAME.size <= len(content):
        if _BLOCK - at % _BLOCK < _FRAME.size:  # too little is left of a block for another frame
            at += _BLOCK - at % _BLOCK
            continue
        checksum, length, part = _FRAME.unpack_from(content, at)
        data = content[at + _FRAME.size : at + _FRAME.size + length]
        if len(data) < length:
            return
        if zlib.crc32(bytes([part]) + data) != checksum:
            raise ValueError(f"{path} is damaged at byte {at}")
        parts = [data] if part in (_WHOLE, _FIRST) else [*parts, data]
        if part in (_WHOLE, _LAST):
            yield b"".join(parts)
        at += _FRAME.size + length


def _values(items) -> dict:
    """Names and values of a record; nested keys are joined by `/`."""
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}


def _step(row: dict) -> int:
    """The trainer's own step where it was logged, else W&B's."""
    name = next(name for name in (*STEP_NAMES[1:4], "_step") if name in row)
    return int(row[name])
