"""Ranks that notice when another one has failed: without this they would wait for it until a timeout, and say nothing.

Every rank tells the store that brought them together that it lives. The first rank listens to all, the others to the
first. Who hears of a failure gives its own work a moment to end by itself, lets the first rank write why, and ends.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable

import torch.distributed as dist

from workbench import ranks

BEAT = 1.0
"""Seconds between signs of life."""
SILENCE = 20.0
"""Seconds without one after which a rank counts as gone: less than the 30 that torchrun leaves the others."""
GRACE = 5.0
"""Seconds for a rank that hears of a failure to end by itself, as it does if the failure is its own as well."""
FAILED = "workbench/failed"


class Watch:
    """Runs beside `train_run`. `last_words(reason)` is called, on the first rank, before the process is ended."""

    def __init__(self, last_words: Callable[[str], None]):
        self.last_words = last_words
        self._over = threading.Event()
        self._store: dist.Store | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Watch:
        self._store = ranks.store()
        if self._store is not None:
            self._thread = threading.Thread(target=self._listen, name="watch", daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *_exception) -> None:
        """The thread holds the run by `last_words`: were it the last to, it would free the model while Python ends, and
        the process would abort."""
        self._over.set()
        if self._thread is not None:
            self._thread.join(SILENCE)

    def report(self, reason: str) -> str:
        """This rank has failed: tell the others. Returns the reason of whichever rank failed first."""
        self._over.set()
        if self._store is None:
            return reason
        try:
            if self._store.check([FAILED]):
                return self._store.get(FAILED).decode()
            self._store.set(FAILED, reason)
        except (RuntimeError, OSError):  # the launcher is gone; whoever listened to it is going
            pass
        return reason

    def _listen(self) -> None:
        watched = range(1, ranks.count()) if ranks.is_first() else [0]
        heard = {rank: (b"", time.monotonic()) for rank in watched}
        last = time.monotonic()
        while not self._over.wait(BEAT):
            now = time.monotonic()
            if now - last > SILENCE / 2:  # this process was stopped for a while, and the others perhaps with it
                heard = {rank: (beat, now) for rank, (beat, _) in heard.items()}
            last = now
            try:
                reason = self._round(now, heard)
            except (RuntimeError, OSError) as error:
                reason = f"the launcher is gone ({str(error).splitlines()[0]})"
            if reason:
                self._end(reason)

    def _round(self, now: float, heard: dict[int, tuple[bytes, float]]) -> str | None:
        """Give a sign of life and listen for others'; the reason to end, if there is one."""
        self._store.set(f"workbench/alive/{ranks.number()}", str(now))
        if self._store.check([FAILED]):
            return self._store.get(FAILED).decode()
        for rank, (beat, since) in heard.items():
            key = f"workbench/alive/{rank}"
            latest = self._store.get(key) if self._store.check([key]) else b""
            if latest != beat:
                heard[rank] = (latest, now)
            elif now - since > SILENCE:
                return f"rank {rank} has given no sign of life for {SILENCE:.0f} s"
        return None

    def _end(self, reason: str) -> None:
        if self._over.wait(GRACE):
            return
        try:
            if ranks.is_first():
                self.last_words(reason)
            print(f"rank {ranks.number()} ends: {reason}", file=sys.stderr, flush=True)
        finally:
            os._exit(1)  # the main thread waits inside a collective operation and cannot be interrupted
