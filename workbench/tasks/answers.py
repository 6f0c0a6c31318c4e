"""A pool of processes that judge untrusted text, each job within a bound of CPU time, memory and wall time.

CPU time is what decides, so that a busy machine does not change a verdict; wall time is only the last resort. The
processes are plain Python scripts: nothing is forked or imported from the caller's main module, so a notebook can use
them. They end with their parent.
"""

from __future__ import annotations

import atexit
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from queue import LifoQueue

SCRIPT = Path(__file__).parent / "verifiers" / "worker.py"
SECONDS = 5.0
"""CPU time of one verdict."""
MEGABYTES = 2048
"""Address space of one process. Linux enforces it; macOS does not."""
WALL_FACTOR, WALL_EXTRA = 20.0, 120.0
"""A process without a reply after 20 × its CPU seconds + 120 s (starting and importing included) is killed: room for a
machine that gives it a twentieth of a core, since nothing that judges ever waits for something else."""
JOBS_PER_PROCESS = 2000
"""Jobs after which a process is replaced, since sympy's caches grow."""
MAX_REPLY = 1 << 28


@dataclass(frozen=True)
class Job:
    """What to judge: a name of `worker.JOBS`, its keyword arguments (JSON values) and its CPU seconds."""

    name: str
    arguments: dict
    seconds: float = SECONDS


@dataclass(frozen=True)
class Outcome:
    """What a job returned (`result`), or why it returned nothing (`error`: 'time', 'memory', 'crash' or a message)."""

    result: object = None
    error: str = ""


class _Silence(Exception):
    """The process gave no whole reply; the argument says why."""


class _Process:
    def __init__(self, megabytes: int):
        # A fixed hash seed: some data sets of reasoning-gym walk through sets of strings.
        environment = os.environ | {"PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        self.popen = subprocess.Popen(
            [sys.executable, str(SCRIPT), str(megabytes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,  # an interrupt at the keyboard is the caller's
        )
        self.jobs = 0

    def ask(self, job: Job) -> Outcome:
        """The job's outcome; `_Silence` if the process died or ran past its wall time."""
        self.jobs += 1
        deadline = time.monotonic() + WALL_FACTOR * job.seconds + WALL_EXTRA
        request = json.dumps({"job": job.name, "seconds": job.seconds, "arguments": job.arguments}).encode()
        try:
            self.popen.stdin.write(len(request).to_bytes(8) + request)
            self.popen.stdin.flush()
        except OSError:
            raise _Silence("crash") from None
        size = int.from_bytes(self._read(8, deadline))
        if size > MAX_REPLY:
            raise _Silence("memory")
        return Outcome(**json.loads(self._read(size, deadline)))

    def _read(self, count: int, deadline: float) -> bytes:
        parts, missing = [], count
        descriptor = self.popen.stdout.fileno()
        while missing:
            ready, _, _ = select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise _Silence("time")
            part = os.read(descriptor, min(missing, 1 << 20))
            if not part:
                raise _Silence("crash")
            parts.append(part)
            missing -= len(part)
        return b"".join(parts)

    def end(self) -> None:
        with suppress(OSError):
            self.popen.kill()
        with suppress(OSError):
            self.popen.stdin.close()
        self.popen.stdout.close()
        self.popen.wait()


@dataclass
class Pool:
    """At most `size` processes, started when first needed, killed and replaced when a job exceeds its bound."""

    size: int
    megabytes: int = MEGABYTES
    _owner: int = field(default_factory=os.getpid)
    _slots: LifoQueue = field(default_factory=LifoQueue)

    def __post_init__(self):
        for _ in range(self.size):
            self._slots.put(None)

    def run(self, jobs: Sequence[Job]) -> list[Outcome]:
        """The outcomes of `jobs`, in their order; jobs run side by side. Never raises for what a job does."""
        if len(jobs) < 2 or self.size < 2:
            return [self._one(job) for job in jobs]
        with ThreadPoolExecutor(min(self.size, len(jobs))) as threads:
            return list(threads.map(self._one, jobs))

    def _one(self, job: Job) -> Outcome:
        """A job that failed for lack of memory or crashed gets a second, fresh process if the first was not: what
        earlier jobs left behind must not decide a verdict."""
        process = self._slots.get() or _Process(self.megabytes)
        try:
            fresh = process.jobs == 0
            outcome = self._asked(process, job)
            if outcome.error in ("memory", "crash") and not fresh:
                process.end()
                process = _Process(self.megabytes)
                outcome = self._asked(process, job)
            if outcome.error in ("time", "memory", "crash") or process.jobs >= JOBS_PER_PROCESS:
                process.end()
                process = None
            return outcome
        except BaseException:  # an interrupt between request and reply: the next reply would be the wrong one
            process.end()
            process = None
            raise
        finally:
            self._slots.put(process)

    @staticmethod
    def _asked(process: _Process, job: Job) -> Outcome:
        try:
            return process.ask(job)
        except _Silence as silence:
            return Outcome(error=str(silence))

    def close(self) -> None:
        """End the processes; those of a pool inherited by a fork are the parent's and stay."""
        processes = [self._slots.get() for _ in range(self.size)] if self._owner == os.getpid() else []
        for process in processes:
            if process is not None:
                process.end()
            self._slots.put(None)


_pools: dict[tuple[int, str], Pool] = {}


def pool(purpose: str = "judge") -> Pool:
    """This process's pool for a purpose. What has read a response never makes questions, hence more than one."""
    key = (os.getpid(), purpose)
    if key not in _pools:
        _pools[key] = Pool(max(1, min(4, os.cpu_count() or 1)) if purpose == "judge" else 1)
        atexit.register(_pools[key].close)
    return _pools[key]
