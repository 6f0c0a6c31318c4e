"""Who writes a folder, and whether that process is still there: what makes a stored "running" honest."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

HEARTBEAT = 5.0
"""Seconds between heartbeats: a file's modification time is moved on while its writer lives."""
SILENCE = 120.0
"""Seconds without a heartbeat after which a writer on another machine counts as gone."""


def this_process() -> dict[str, Any]:
    """What identifies this process beyond its number, which the system may give out again."""
    return {"pid": os.getpid(), "process_started": psutil.Process().create_time(), "host": socket.gethostname()}


def is_alive(process: Mapping[str, Any], heartbeat: float) -> bool:
    """Whether `process` (see `this_process`) still exists; on another machine its last `heartbeat` has to do."""
    if process["host"] != socket.gethostname():
        return time.time() - heartbeat < SILENCE
    try:
        found = psutil.Process(process["pid"])
        return abs(found.create_time() - process["process_started"]) < 1.0 and found.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@contextmanager
def beating(path: Path) -> Iterator[None]:
    """Touch `path`, where it exists, every few seconds while inside."""
    stopped = threading.Event()

    def beat() -> None:
        while not stopped.wait(HEARTBEAT):
            with contextlib.suppress(OSError):
                os.utime(path)

    threading.Thread(target=beat, name="heartbeat", daemon=True).start()
    try:
        yield
    finally:
        stopped.set()
