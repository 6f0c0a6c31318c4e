"""Run a program nobody trusts: no network, no write access outside a scratch directory, and limits on CPU time, memory,
processes, wall time and output, for the whole tree of processes, which is killed afterwards.

Linux only (x86_64, aarch64; kernel 5.14 or later), as root or as an ordinary user: it needs user namespaces and nothing
else installed. Where they cannot be had, nothing is run: `SandboxUnavailable` says why. `confinement.py` is the part
that runs inside; what it reports comes from outside the program's reach, never from the program.

What holds it (all of it is tried out once per process, before the first program is run):

* new user, mount, process, network, IPC, host name and cgroup namespaces; a root file system of its own, read-only,
  with the interpreter and the system libraries; `/tmp` in memory and bounded; no `/proc`, no `/sys`;
* an identity without privileges (root becomes `nobody`), `no_new_privs` and a system call filter (`system_calls.py`);
* per process: address space, CPU time, open files, file size; per tree: number of processes and threads
  (RLIMIT_NPROC of the user namespace), resident memory and CPU time (looked at every 20 ms), wall time, bytes written
  to stdout and stderr.

Between two looks memory can exceed its limit by what 20 ms allow. CPU time of children whose parent ignores SIGCHLD is
not counted once they have ended; wall time bounds it.
"""

from __future__ import annotations

import base64
import json
import os
import platform
import re
import select
import subprocess
import sys
import sysconfig
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from workbench.tasks.system_calls import AUDIT_ARCH, call_filter

INSIDE = Path(__file__).with_name("confinement.py")
SYSTEM = ("/bin", "/lib", "/lib32", "/lib64", "/usr", "/etc/ld.so.cache", "/etc/alternatives")
MINIMUM_KERNEL = (5, 14)  # since then RLIMIT_NPROC counts within a user namespace
STARTING_S = 20.0  # for the namespaces to be built, on a busy machine
MARGIN_S = 10.0  # beyond the wall time of a run, after which the sandbox itself counts as lost
NO_NAMESPACES = (
    "user namespaces are not allowed here. On a machine of one's own: `sysctl user.max_user_namespaces=15000`, on "
    "Ubuntu also `sysctl kernel.apparmor_restrict_unprivileged_userns=0`; a container must be started with a security "
    "profile that allows them (docker: `--security-opt seccomp=unconfined --security-opt apparmor=unconfined`)"
)


class SandboxUnavailable(RuntimeError):
    """This machine cannot confine a program, so none is run; the message says what is missing."""


@dataclass(frozen=True)
class Limits:
    """What one run of a program may use, its whole tree of processes together unless stated otherwise."""

    wall_s: float = 20.0  # generous: a busy machine must not turn a right program into a wrong one
    cpu_s: float = 6.0
    memory_bytes: int = 1 << 30  # resident; also the address space of each process
    processes: int = 32  # processes and threads
    output_bytes: int = 4 << 20  # stdout and stderr
    scratch_bytes: int = 64 << 20  # files in /tmp; counts as memory too
    scratch_files: int = 1000
    open_files: int = 64  # per process


@dataclass(frozen=True)
class Outcome:
    """What came of a run: why it `ended` (`exit`, `time`, `cpu`, `memory`, `output`, or `lost` when the sandbox itself
    went down with it), the exit `status` of the main process (negative: the signal; None: it was killed from outside),
    what it wrote, and the wall and CPU seconds of the tree."""

    ended: str
    status: int | None
    stdout: bytes
    stderr: bytes
    wall_s: float
    cpu_s: float

    @property
    def finished(self) -> bool:
        """Whether it ended by itself and without an error."""
        return self.ended == "exit" and self.status == 0


LOST = Outcome("lost", None, b"", b"", 0.0, 0.0)


def why_unavailable() -> str | None:
    """Why no program can be run on this machine, or None if one can; found out once per process by trying it."""
    return _why_unavailable(sys.platform, platform.machine(), platform.release())


@cache
def _why_unavailable(system: str, machine: str, kernel: str) -> str | None:
    if system != "linux":
        return f"programs are confined by Linux namespaces, and this system is {system}"
    if machine not in AUDIT_ARCH:
        return f"no system call filter is written for {machine} machines"
    numbers = re.match(r"(\d+)\.(\d+)", kernel)
    if not numbers or (int(numbers[1]), int(numbers[2])) < MINIMUM_KERNEL:
        return f"Linux {MINIMUM_KERNEL[0]}.{MINIMUM_KERNEL[1]} or later is needed; this is {kernel}"
    limits = Limits(processes=8, memory_bytes=256 << 20, wall_s=30)
    try:
        with Sandbox({"probe.py": _PROBE}, python("probe.py"), limits, probe=True) as sandbox:
            outcome = sandbox.run("")
    except SandboxUnavailable as error:
        return str(error)
    held = outcome.stdout.decode(errors="replace").split()
    if outcome.finished and held == ["network", "files", "memory", "namespaces", "others", "processes"]:
        return None
    return f"the sandbox did not hold when tried: {' '.join(held)} {outcome.ended} {outcome.stderr.decode()[-300:]}"


_PROBE = """
import ctypes, os, socket, time

def fails(action):
    try:
        action()
    except (OSError, MemoryError):
        return True

def write(path):
    with open(path, "w") as file:
        file.write("x")

def fork_many():
    for _ in range(20):
        if not os.fork():
            time.sleep(60)

write("/tmp/mine")
outside = ("/x", "/usr/x", "/program/x", "/dev/x", "/etc/x", "/tmp/../x")
checks = {
    "network": fails(lambda: socket.create_connection(("127.0.0.1", 9), timeout=1)),
    "files": all(fails(lambda: write(path)) for path in outside),
    "memory": fails(lambda: bytearray(300 << 20)),
    "namespaces": ctypes.CDLL(None).unshare(0x10000000) == -1,
    "others": not os.path.exists("/proc/self"),
    "processes": fails(fork_many),
}
print(*(name for name, held in checks.items() if held))
"""


def python(name: str, *arguments: str) -> list[str]:
    """The command that runs the sandbox file `name` by this interpreter, in isolated mode and without site packages."""
    return [os.path.realpath(sys.executable), "-I", "-S", "-B", f"/program/{name}", *arguments]


def site_packages() -> list[str]:
    """Where this interpreter's packages lie; visible in the sandbox, but on no program's path unless it asks."""
    return sorted({os.path.realpath(sysconfig.get_path(kind)) for kind in ("purelib", "platlib")})


class Sandbox:
    """A confined place for one program, run as often as wanted, each time afresh.

    `files` (name → text) lie read-only in `/program`, `command` is what is executed. A context manager: leaving it
    kills everything. Raises `SandboxUnavailable` where programs cannot be confined.

        with Sandbox({"main.py": code}, python("main.py"), Limits()) as sandbox:
            outcome = sandbox.run("3 4\\n")
    """

    def __init__(
        self, files: Mapping[str, str], command: Sequence[str], limits: Limits | None = None, *, probe: bool = False
    ) -> None:
        if not probe and (reason := why_unavailable()):
            raise SandboxUnavailable(f"the program is not run: {reason}")
        if any("/" in name or name in ("", ".", "..") for name in files):
            raise ValueError(f"file names must not contain directories: {sorted(files)}")
        self.limits = limits or Limits()
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(INSIDE)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            env={},
            start_new_session=True,
        )
        for stream in (self._process.stdin, self._process.stdout):
            os.set_blocking(stream.fileno(), False)
        reply = self._exchange(_setup(files, command, self.limits), STARTING_S)
        if "ready" not in reply:
            self.close()
            reason = reply.get("refused", f"the namespaces were not ready within {STARTING_S:.0f} s")
            raise SandboxUnavailable(f"{reason}: {NO_NAMESPACES}" if "namespace" in reason else reason)

    def run(self, stdin: str = "") -> Outcome:
        """Run the program once on this input; whatever it does, this returns within the wall limit and a margin."""
        reply = self._exchange({"stdin": stdin}, self.limits.wall_s + MARGIN_S)
        if "ended" not in reply:
            self.close()
            return LOST
        output = {name: base64.b64decode(reply.pop(name)) for name in ("stdout", "stderr")}
        return Outcome(**reply, **output)

    def close(self) -> None:
        """Kill whatever still runs. The kernel ends every process of the namespace with its first one."""
        self._process.kill()
        self._process.wait()
        self._process.stdin.close()
        self._process.stdout.close()

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _exchange(self, message: dict[str, object], seconds: float) -> dict[str, object]:
        """Send a line, read a line; {} when the other side is gone or late."""
        if self._process.poll() is not None:
            return {}
        deadline = time.monotonic() + seconds
        outgoing, incoming = memoryview(json.dumps(message).encode() + b"\n"), bytearray()
        poll = select.poll()
        poll.register(self._process.stdout, select.POLLIN)
        poll.register(self._process.stdin, select.POLLOUT)
        while not incoming.endswith(b"\n"):
            ready = dict(poll.poll(max(deadline - time.monotonic(), 0) * 1000))
            if not ready:
                return {}
            if self._process.stdout.fileno() in ready:
                data = self._process.stdout.read(1 << 16)
                if not data:
                    return {}
                incoming += data
            if self._process.stdin.fileno() in ready:
                try:
                    outgoing = outgoing[self._process.stdin.write(outgoing[: 1 << 16]) :]
                except BrokenPipeError:
                    return {}
                if not outgoing:
                    poll.unregister(self._process.stdin)
        return json.loads(incoming)


def _setup(files: Mapping[str, str], command: Sequence[str], limits: Limits) -> dict[str, object]:
    """What `confinement.py` is told."""
    machine = platform.machine()
    rlimits = {
        "RLIMIT_AS": limits.memory_bytes,
        "RLIMIT_CPU": int(limits.cpu_s) + 1,
        "RLIMIT_NPROC": limits.processes,
        "RLIMIT_NOFILE": limits.open_files,
        "RLIMIT_FSIZE": limits.scratch_bytes,
        "RLIMIT_STACK": 32 << 20,
        "RLIMIT_SIGPENDING": 256,
        **dict.fromkeys(("RLIMIT_CORE", "RLIMIT_MEMLOCK", "RLIMIT_MSGQUEUE", "RLIMIT_NICE", "RLIMIT_RTPRIO"), 0),
    }
    return {
        "files": dict(files),
        "command": list(command),
        "environment": {
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            **{"HOME": "/tmp", "TMPDIR": "/tmp", "LANG": "C.UTF-8", "PYTHONHASHSEED": "0"},
            **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"),
        },
        "visible": [*SYSTEM, os.path.realpath(sys.base_prefix), *site_packages()],
        "rlimits": rlimits,
        "scratch": f"size={limits.scratch_bytes},nr_inodes={limits.scratch_files},mode=1777",
        "filter": base64.b64encode(call_filter(machine)).decode(),
        "pivot_root": {"x86_64": 155, "aarch64": 41}[machine],
        **{name: getattr(limits, name) for name in ("wall_s", "cpu_s", "memory_bytes", "output_bytes")},
    }
