"""Files that survive a kill at any moment: written beside their place, flushed to disk, then renamed."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

PARTIAL = ".partial"
"""Suffix of what is being written; anything with it is left over from a kill and may be deleted."""


def write_atomic(path: Path, write: Callable[[Path], None]) -> None:
    """Make the file or folder `path` by `write(temporary path)`; readers see the old content or the new, never a part.

    On failure nothing of the new content stays behind and `path` is as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = partial_path(path)
    remove(partial)
    try:
        write(partial)
        for file in [partial, *partial.rglob("*")] if partial.is_dir() else [partial]:
            _sync(file)
        if path.is_dir():
            shutil.rmtree(path)
        os.replace(partial, path)
        _sync(path.parent)
    except BaseException:
        remove(partial)
        raise


def partial_path(path: Path) -> Path:
    """Where `write_atomic` makes what becomes `path`."""
    return path.with_name(path.name + PARTIAL)


def write_text(path: Path, text: str) -> None:
    write_atomic(path, lambda partial: partial.write_text(text, encoding="utf-8"))


def write_shared(path: Path, text: str) -> None:
    """Like `write_text` for a file that several processes may write at once: each has its own temporary file, and the
    last one to finish wins."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, partial = tempfile.mkstemp(prefix=f"{path.name}.", suffix=PARTIAL, dir=path.parent)
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(partial, 0o644)  # mkstemp's are for their owner alone, and reports are for sharing
        os.replace(partial, path)
    except BaseException:
        remove(Path(partial))
        raise


def write_json(path: Path, content: object) -> None:
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def append_line(path: Path, line: str) -> None:
    """Append one line and flush it to disk. A kill can leave part of it; readers drop a last line without newline."""
    with open(path, "a", encoding="utf-8") as file:
        file.write(line + "\n")
        file.flush()
        os.fsync(file.fileno())


def read_lines(path: Path) -> list[str]:
    """The complete lines of a file that is being appended to; [] if it does not exist yet."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return []
    return text.split("\n")[:-1]


def remove(path: Path) -> None:
    """Delete a file or folder; nothing happens if there is none."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
