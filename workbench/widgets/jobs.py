"""Commands that run one after another in child processes, so that a notebook queues work without waiting for it."""

import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from queue import Queue


@dataclass
class Job:
    """A `python -m workbench` command; `state` is queued, running, done or failed."""

    label: str
    arguments: list[str]
    done: Callable[["Job"], None]
    state: str = "queued"
    errors: str = ""
    changed: Callable[[], None] = field(default=lambda: None)


class Jobs:
    """A queue with one worker thread. Children outlive the kernel: a run that has begun goes on."""

    def __init__(self):
        self.all: list[Job] = []
        self._queue: Queue[Job] = Queue()
        self._worker: threading.Thread | None = None

    def add(self, job: Job) -> None:
        self.all.append(job)
        self._queue.put(job)
        if self._worker is None:
            self._worker = threading.Thread(target=self._work, name="workbench-jobs", daemon=True)
            self._worker.start()

    def _work(self) -> None:
        while True:
            job = self._queue.get()
            job.state = "running"
            job.changed()
            with tempfile.TemporaryFile() as errors:
                code = subprocess.call(
                    [sys.executable, "-m", "workbench", *job.arguments],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=errors,
                    start_new_session=True,
                )
                errors.seek(0)
                job.errors = errors.read()[-2000:].decode(errors="replace").strip().split("\n")[-1]
            job.state = "done" if code == 0 else "failed"
            job.done(job)
            job.changed()


def config_file(config) -> str:
    """`config` as a YAML file for a child to read; it stays until the system clears its temporary folder."""
    with tempfile.NamedTemporaryFile("w", suffix=".yaml", prefix="workbench-", delete=False, encoding="utf-8") as file:
        file.write(config.to_yaml())
    return str(Path(file.name))
