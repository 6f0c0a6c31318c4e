"""Children of a process that has imported everything already: they begin at once, not after seconds of imports.

`python -m workbench.study.warm FD` imports, and then forks for every request on the socket FD; the child goes on as
`python -m workbench …` would. The process that forks computes nothing itself, so there are no threads of torch or
OpenMP that a child would miss.
"""

from __future__ import annotations

import os
import runpy
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from importlib import import_module
from multiprocessing.connection import Connection
from pathlib import Path

from workbench.study.launch import PARENT_VARIABLE

POLL_SECONDS = 0.05
MODULES = ("workbench.training.run", "transformers.models.qwen2.modeling_qwen2", "workbench.__main__")
"""What a training run imports."""


class WarmProcess:
    """The process that forks, from the side of who asks it to; it ends with the `with` block, or with this process.

    `environment` is what its libraries read when they are imported, the number of threads above all; its children get
    one each. They see a parent that lives as long as this process, so they notice when that is gone.
    """

    def __init__(self, environment: Mapping[str, str]):
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env=dict(environment),
                start_new_session=True,
            )
        self._connection = Connection(ours.detach())
        self._lock = threading.Lock()
        self._ended: dict[int, int] = {}

    def __enter__(self) -> WarmProcess:
        return self

    def __exit__(self, *_exception) -> None:
        self._connection.close()
        self._process.wait()

    def start(self, arguments: Sequence[str], log: Path, environment: Mapping[str, str]) -> WarmChild:
        """Start `python -m workbench` with `arguments`, its output added to the file `log`. Raises `RuntimeError` if
        the process that forks is not there."""
        with self._lock:
            try:
                self._connection.send((list(arguments), str(log), dict(environment)))
                while (message := self._connection.recv())[0] != "started":
                    self._note(*message)
            except (EOFError, OSError) as error:
                raise RuntimeError("the process that starts runs has ended; its reason stands above") from error
        return WarmChild(self, message[1])

    def code(self, pid: int) -> int | None:
        """Exit code of the child `pid`; None while it runs. Where the process that forks has ended, so has the child,
        which then gets −15 (SIGTERM)."""
        with self._lock:
            try:
                while pid not in self._ended and self._connection.poll():
                    self._note(*self._connection.recv())
            except (EOFError, OSError):
                self._ended.setdefault(pid, -15)
        return self._ended.get(pid)

    def _note(self, _what: str, pid: int, code: int) -> None:
        self._ended[pid] = code


class WarmChild:
    """A child as `subprocess.Popen` has them."""

    def __init__(self, warm: WarmProcess, pid: int):
        self._warm, self.pid = warm, pid

    @property
    def returncode(self) -> int | None:
        return self._warm.code(self.pid)

    def poll(self) -> int | None:
        return self.returncode

    def wait(self, timeout: float = float("inf")) -> int:
        end = time.monotonic() + timeout
        while (code := self.returncode) is None:
            if time.monotonic() > end:
                raise subprocess.TimeoutExpired("workbench", timeout)
            time.sleep(POLL_SECONDS)
        return code

    def send_signal(self, number: int) -> None:
        if self.returncode is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(9)


def serve(connection: Connection) -> tuple[list[str], str, dict[str, str]] | None:
    """Fork for every request, tell what became of the children, and return None when the other side is gone. In a child
    it returns that child's request."""
    alive = True
    while alive:
        try:
            if connection.poll(POLL_SECONDS):
                request = connection.recv()
                pid = os.fork()
                if pid == 0:
                    connection.close()
                    return request
                connection.send(("started", pid))
            while (ended := _ended_child()) is not None:
                connection.send(("ended", *ended))
        except (EOFError, OSError):
            alive = False
    return None


def _ended_child() -> tuple[int, int] | None:
    try:
        pid, status = os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return None
    return (pid, os.waitstatus_to_exitcode(status)) if pid else None


def _go_on(arguments: list[str], log: str, environment: dict[str, str]) -> None:
    """In a child: be what `python -m workbench` with these arguments, output and environment would be."""
    os.setsid()
    output = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    for descriptor in (1, 2):
        os.dup2(output, descriptor)
    os.environ.clear()
    os.environ.update(environment | {PARENT_VARIABLE: str(os.getppid())})
    sys.argv = ["workbench", *arguments]
    runpy.run_module("workbench", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    for name in MODULES:
        import_module(name)
    if (request := serve(Connection(int(sys.argv[1])))) is not None:
        _go_on(*request)
