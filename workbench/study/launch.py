"""Start a training run from wherever the caller is: a notebook cell, a batch notebook or a script.

In a kernel the run trains in a child process, so that the notebook stays light, a crash of the run is not a crash of
the notebook, and interrupting the cell stops the run at a step boundary. Outside a kernel it trains in this process.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path

from workbench.store import open_run, runs_root
from workbench.widgets.frontend import in_kernel, live_front_end

POLL_SECONDS = 0.25
GRACE_SECONDS = 180.0  # an interrupted run may finish its step and write its checkpoint before it is killed
PARENT_VARIABLE = "WORKBENCH_PARENT"


def train(config, root=None, reference=None):
    """Train `config`, or continue or load the run if it exists, and return it as a Run.

    `root`: folder of runs, by default `outputs/runs` of the project. `reference`: a published curve (`step`, `value`,
    `label`) drawn behind the live entropy curve. With a live front-end a figure follows the run; otherwise one plain
    line per step is printed. Interrupting stops the run at the next step boundary, resumable, and raises
    KeyboardInterrupt; a failure in the child process raises RuntimeError with the reason and the run's folder.
    """
    root = runs_root(root).resolve()
    folder = root / config.run_id
    if in_kernel():
        follow = _live_follower(folder, reference) if live_front_end() else _print_now
        _train_in_child(config, folder, follow)
    else:
        from workbench.training.run import train_run  # imports torch: only where training happens in this process

        folder = train_run(config, root)
    return open_run(folder)


def stop_with_parent() -> None:
    """Called by the `train` command: when the kernel that launched this process is gone, end like on SIGTERM.

    A kernel killed by the system cannot tell its children; without this they would train on unseen. Does nothing when
    WORKBENCH_PARENT is not set, that is for runs started by hand.
    """
    parent = os.environ.get(PARENT_VARIABLE)
    if parent is None:
        return

    def watch():
        while os.getppid() == int(parent):
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="stop-with-parent", daemon=True).start()


@contextmanager
def terminated_like_interrupted():
    """SIGTERM as KeyboardInterrupt, so that `kill` leaves everything as resumable as Ctrl-C does."""

    def interrupt(_number, _frame):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _train_in_child(config, folder: Path, follow) -> None:
    """Run the `train` command on `config`; `follow(text)` gets its new output several times a second."""
    with tempfile.TemporaryDirectory(prefix="workbench-") as scratch:
        config_path, out, err = (Path(scratch) / name for name in ("config.yaml", "out", "err"))
        config_path.write_text(config.to_yaml(), encoding="utf-8")
        child = _start(config_path, folder.parent, out, err)
        with out.open(encoding="utf-8", errors="replace") as lines:
            try:
                while child.poll() is None:
                    follow(lines.read())
                    time.sleep(POLL_SECONDS)
            except BaseException:
                stop_child(child)
                raise
            finally:
                follow(lines.read())
        if child.returncode:
            raise RuntimeError(_failure(child.returncode, err.read_text(errors="replace"), folder))


def _start(config_path: Path, root: Path, out: Path, err: Path) -> subprocess.Popen:
    """The child writes to files, not pipes: it never blocks when nobody reads and never breaks when the reader dies."""
    with out.open("wb") as stdout, err.open("wb") as stderr:
        return subprocess.Popen(
            [sys.executable, "-m", "workbench", "train", "--config", config_path, "--root", root],
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            env=os.environ | {PARENT_VARIABLE: str(os.getpid()), "PYTHONUNBUFFERED": "1"},
            start_new_session=True,  # an interrupt of the kernel's process group must not reach it a second time
        )


def stop_child(child: subprocess.Popen) -> None:
    """Ask `child`, if it still runs, to stop at its next step; kill it if it has not within GRACE_SECONDS."""
    if child.poll() is not None:
        return
    child.send_signal(signal.SIGINT)
    try:
        child.wait(GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def _failure(code: int, errors: str, folder: Path) -> str:
    """One sentence: what the run itself recorded, else the last line it wrote to stderr, else its exit code."""
    try:
        reason = json.loads((folder / "status.json").read_text()).get("reason")
    except (OSError, ValueError):
        reason = None
    spoken = [line for line in errors.splitlines() if line.strip()]
    said = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    return f"the run failed: {reason or (spoken[-1] if spoken else said)} (run folder: {folder})"


def _print_now(text: str) -> None:
    if text:
        print(text, end="", flush=True)


def _live_follower(folder: Path, reference):
    from IPython.display import display

    from workbench.widgets.live import LiveCurves

    curves = LiveCurves(folder, reference)
    display(curves.widget)
    return lambda text: curves.poll()
