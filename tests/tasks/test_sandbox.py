"""Programs nobody trusts are contained: each hostile program is run, then what it tried to reach is looked at.

`python -m pytest tests/tasks/test_sandbox.py -m '' -s` prints the report of every program. The hostile programs lie in
`programs/` as text files, so that nothing imports or runs them by mistake; the first line of each says what it tries. A
program that succeeds in something forbidden says ESCAPED.
"""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import monotonic, sleep
from uuid import uuid4

import psutil
import pytest

from workbench.tasks import sandbox
from workbench.tasks.sandbox import Limits, Sandbox, SandboxUnavailable, python, site_packages, why_unavailable

PROGRAMS = {path.stem: path.read_text() for path in sorted(Path(__file__).with_name("programs").glob("*.txt"))}
LIMITS = Limits(wall_s=4, cpu_s=1, memory_bytes=256 << 20, processes=16, output_bytes=1 << 20, scratch_bytes=16 << 20)
QUICK = {
    *("fork_bomb", "memory_bomb", "memory_in_many_processes", "endless_output", "daemon_ignoring_signals"),
    *("kill_everyone", "ignoring_sigterm", "writing_everywhere", "huge_file", "symbolic_links", "network_client"),
    *("tracing", "new_namespaces", "proc_tricks", "forged_report", "infinite_recursion", "zip_bomb", "foreign_calls"),
}
ENDS = {  # where more than an ordinary end is expected: why the run must end
    "endless_output": {"output"},
    "endless_errors": {"output"},
    "output_of_many_processes": {"output"},
    "memory_in_many_processes": {"memory"},
    "memory_bomb_catching_errors": {"cpu", "time", "memory"},
    "fork_bomb": {"cpu", "time"},
    "endless_loop": {"cpu", "time"},
    "ignoring_sigterm": {"cpu", "time"},
    "closed_streams": {"cpu", "time"},
    "exploding_expression": {"cpu", "time"},
    "huge_number": {"cpu", "time"},
    "sleeping": {"time"},
    "stopped_forever": {"time"},
    "waiting_for_input": {"time"},
    "zombies": {"time"},
}
available = pytest.mark.skipif(why_unavailable() is not None, reason=f"no sandbox: {why_unavailable()}")


def run_python(code, stdin="", limits=LIMITS):
    with Sandbox({"main.py": code}, python("main.py"), limits) as box:
        return box.run(stdin)


def run_hostile(name, folder):
    """Run one hostile program beside a listening port and a file of ours; returns its outcome and what was breached."""
    canary = folder / "canary"
    canary.write_text("alive")
    name_inside = f"main_{uuid4().hex}.py"  # tells this run's processes from those of tests that run beside it
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        started = monotonic()
        with Sandbox({name_inside: PROGRAMS[name], "main.py": "# target"}, python(name_inside), LIMITS) as box:
            pids = family(box)
            outcome = box.run(f"{server.getsockname()[1]}\n{canary}\n")
        seconds = monotonic() - started
        breaches = [line for line in outcome.stdout.decode(errors="replace").split("\n") if "ESCAPED" in line][:3]
        try:
            server.accept()
            breaches.append("a connection arrived")
        except BlockingIOError:
            pass
    if canary.read_text() != "alive":
        breaches.append("our file was changed")
    if len(outcome.stdout) > LIMITS.output_bytes:
        breaches.append("the output was not cut")
    if seconds > LIMITS.wall_s + sandbox.MARGIN_S:
        breaches.append(f"it took {seconds:.0f} s")
    breaches += [f"process {process} is left" for process in left_over(name_inside, pids)]
    return outcome, breaches


def left_over(name_inside, pids, patience=5.0):
    """Processes of a sandbox and of the program of that name which still exist after a moment (the kernel's)."""
    deadline = monotonic() + patience
    while True:
        found = []
        for process in psutil.process_iter(["cmdline", "status"]):
            command = " ".join(process.info["cmdline"] or [])
            ours = process.pid in pids or f"/program/{name_inside}" in command
            if ours and process.info["status"] != psutil.STATUS_ZOMBIE:
                found.append(f"{process.pid} {command}")
        if not found or monotonic() > deadline:
            return found
        sleep(0.01)


def report(name, outcome, breaches):
    tries = PROGRAMS[name].partition("\n")[0].removeprefix("# ")
    verdict = "; ".join(breaches) or "contained"
    status = "killed" if outcome.status is None else f"status {outcome.status}"
    numbers = f"{outcome.wall_s:4.1f} s, CPU {outcome.cpu_s:4.1f} s, {len(outcome.stdout):7d} bytes"
    return f"{name:28} {verdict:10} ended by {outcome.ended:6} {status:10} {numbers}  {tries}"


@available
@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in PROGRAMS]
)
def test_hostile_program_is_contained(name, tmp_path):
    outcome, breaches = run_hostile(name, tmp_path)
    print(report(name, outcome, breaches))
    assert not breaches
    assert outcome.ended in ENDS.get(name, {"exit", "cpu", "memory", "time", "output"})


def test_there_are_at_least_fifty_hostile_programs():
    assert len(PROGRAMS) >= 50
    assert QUICK | set(ENDS) <= set(PROGRAMS)


@available
def test_an_honest_program_reads_computes_and_writes():
    outcome = run_python("print(sum(map(int, input().split())))", "3 4\n")
    assert (outcome.ended, outcome.status, outcome.stdout) == ("exit", 0, b"7\n")
    assert outcome.finished


@available
def test_large_input_and_output_pass_through():
    text = "x" * 3_000_000
    outcome = run_python("import sys; sys.stdout.write(sys.stdin.read())", text, Limits())
    assert outcome.stdout == text.encode()


@available
def test_every_run_begins_afresh():
    code = "import os; print(os.listdir('/tmp')); open('/tmp/left', 'w').write('x')"
    with Sandbox({"main.py": code}, python("main.py"), LIMITS) as box:
        assert [box.run().stdout for _ in range(3)] == [b"[]\n"] * 3


@available
def test_a_bomb_in_one_run_does_not_harm_the_next():
    code = f"if input() == 'bomb':\n    exec({PROGRAMS['fork_bomb']!r})\nprint('fine')"
    with Sandbox({"main.py": code}, python("main.py"), LIMITS) as box:
        assert box.run("bomb").ended in ("cpu", "time")
        assert box.run("peace").stdout == b"fine\n"


@available
def test_each_limit_of_the_tree_ends_the_run_and_is_named():
    four = "import os\nfor _ in range(2): os.fork()\n"
    generous = {"wall_s": 60.0, "cpu_s": 30.0, "memory_bytes": 1 << 30, "output_bytes": 1 << 20}

    def ended(code, **limit):
        return run_python(four + code, limits=Limits(**{**generous, **limit})).ended

    assert ended("while True: pass", cpu_s=0.4) == "cpu"
    assert ended("kept = bytearray(b'x') * (60 << 20)\nimport time; time.sleep(60)", memory_bytes=200 << 20) == "memory"
    assert ended("while True: os.write(1, b'x' * 1000)", output_bytes=10_000) == "output"
    assert ended("import time; time.sleep(60)", wall_s=0.3) == "time"


@available
def test_pages_shared_by_several_processes_count_once():
    code = "import os, time\nkept = bytearray(b'x') * (60 << 20)\nfor _ in range(3): os.fork()\ntime.sleep(0.3)"
    assert run_python(code, limits=Limits(memory_bytes=200 << 20)).ended == "exit"


@available
def test_error_status_and_message_are_reported():
    outcome = run_python("raise ValueError('no such thing')")
    assert outcome.status == 1 and not outcome.finished
    assert b"no such thing" in outcome.stderr
    assert run_python("import os; os.kill(os.getpid(), 11)").status == -11


@available
def test_invalid_source_text_and_input_do_not_matter():
    assert run_python("print('\ud800')").status == 1
    assert run_python("\0").status == 1
    assert run_python("import sys; print(len(sys.stdin.buffer.read()))", "\ud800\0").stdout == b"4\n"


@available
@pytest.mark.skipif(sys.prefix.startswith("/tmp/"), reason="the sandbox hides /tmp, where this environment lies")
def test_packages_can_be_imported_on_request():
    code = f"import sys; sys.path += {site_packages()!r}; import numpy; print(int(numpy.arange(4).sum()))"
    assert run_python(code, limits=Limits()).stdout == b"6\n"


def family(box):
    """Process numbers of the sandbox's two own processes and of everything that runs in it."""
    return [box._process.pid, *(child.pid for child in psutil.Process(box._process.pid).children(recursive=True))]


def wait_until_gone(pids):
    deadline = monotonic() + 20
    while any(psutil.pid_exists(pid) for pid in pids):
        assert monotonic() < deadline
        sleep(0.01)


@available
def test_leaving_the_sandbox_kills_what_runs_in_it():
    with Sandbox({"main.py": ""}, python("main.py"), LIMITS) as box:
        pids = family(box)
        assert len(pids) == 2
    wait_until_gone(pids)


@available
def test_killing_the_sandbox_during_a_run_kills_the_program_and_the_run_is_lost():
    code = "import os, time\nif not os.fork():\n    os.setsid()\ntime.sleep(600)"
    with Sandbox({"main.py": code}, python("main.py"), Limits(wall_s=60)) as box, ThreadPoolExecutor(1) as thread:
        running = thread.submit(box.run)
        while len(family(box)) < 4:
            sleep(0.01)
        pids = family(box)
        box._process.kill()
        assert running.result() == sandbox.LOST
        wait_until_gone(pids)
        assert box.run() == sandbox.LOST
        assert not sandbox.LOST.finished


def test_file_names_cannot_leave_the_program_directory():
    for name in ("../x", "/etc/x", "..", ""):
        with pytest.raises((ValueError, SandboxUnavailable)):
            Sandbox({name: ""}, python("x"), LIMITS)


@pytest.mark.parametrize(
    ("system", "machine", "kernel", "reason"),
    [
        ("darwin", "arm64", "24.0.0", "this system is darwin"),
        ("win32", "AMD64", "11", "this system is win32"),
        ("linux", "riscv64", "6.1.0", "riscv64"),
        ("linux", "x86_64", "5.4.0-generic", "5.14 or later is needed; this is 5.4.0-generic"),
    ],
)
def test_systems_without_the_means_are_refused_with_the_reason(system, machine, kernel, reason, monkeypatch):
    monkeypatch.setattr(sandbox.sys, "platform", system)
    monkeypatch.setattr(sandbox.platform, "machine", lambda: machine)
    monkeypatch.setattr(sandbox.platform, "release", lambda: kernel)
    assert reason in why_unavailable()
    monkeypatch.setattr(sandbox.subprocess, "Popen", lambda *_, **__: pytest.fail("something was started"))
    with pytest.raises(SandboxUnavailable, match="the program is not run"):
        Sandbox({"main.py": "print('ran')"}, python("main.py"))


@pytest.fixture(scope="module")
def standalone():
    """The sandbox as a package anyone may read, and an interpreter that anyone may execute."""
    folder = Path(tempfile.mkdtemp(prefix="sandbox-"))
    package = folder / "workbench" / "tasks"
    package.mkdir(parents=True)
    for path in (package.parent, package):
        (path / "__init__.py").touch()
    for name in ("sandbox.py", "confinement.py", "system_calls.py"):
        shutil.copy(Path(sandbox.__file__).with_name(name), package)
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


ASK = "from workbench.tasks.sandbox import *; print(why_unavailable())"
RUN = "; print(Sandbox({'main.py': 'import os; print(os.getuid())'}, python('main.py')).run())"


@available
def test_it_refuses_where_user_namespaces_are_switched_off(standalone):
    script = f"echo 0 > /proc/sys/user/max_user_namespaces && exec {sys.executable} -c '{ASK}'"
    command = ["unshare", "--user", "--map-root-user", "sh", "-c", script]
    environment = {"PYTHONPATH": str(standalone)}
    result = subprocess.run(command, env=environment, cwd=standalone, capture_output=True, text=True, check=True)
    assert "creating namespaces" in result.stdout
    assert "user namespaces are not allowed here" in result.stdout


@available
@pytest.mark.skipif(os.getuid() != 0, reason="only root can become someone else; otherwise all tests run like this")
def test_it_works_for_an_ordinary_user(standalone):
    def reachable(path):
        return all(part.stat().st_mode & 0o005 == 0o005 for part in (path, *path.parents))

    candidates = [Path(os.path.realpath(sys.executable)), Path("/usr/bin/python3.11"), Path("/usr/bin/python3")]
    interpreter = next((path for path in candidates if path.exists() and reachable(path)), None)
    if interpreter is None:
        pytest.skip("no interpreter that an ordinary user could execute")
    result = subprocess.run(
        [interpreter, "-c", ASK + RUN],
        **{
            "user": 12345,
            "group": 12345,
            "extra_groups": [],
            "cwd": standalone,
            "env": {"PYTHONPATH": str(standalone)},
        },
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.startswith("None\n")
    assert "ended='exit', status=0" in result.stdout
