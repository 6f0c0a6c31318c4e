"""Training from a kernel: a child process that is followed, interrupted, continued, and never orphaned."""

import os
import re
import time
from pathlib import Path

import psutil
import pytest
from jupyter_client.manager import start_new_kernel

import workbench as wb

OVERRIDES = {"training.steps": 24, "storage.checkpoint_every": 12}
CONFIG = wb.preset("smoke", OVERRIDES)
REPOSITORY = Path(__file__).parents[2]


class Kernel:
    """A kernel and what its cells print."""

    def __init__(self, folder):
        environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "WORKBENCH_OUTPUTS": str(folder)}
        environment["OMP_NUM_THREADS"] = "1"  # the model is tiny: more threads only wait for each other
        self.manager, self.client = start_new_kernel(env=environment, cwd=str(folder))
        self.run_folder = folder / "runs" / CONFIG.run_id

    def start(self, code):
        self.request = self.client.execute(code)

    def read(self, until=None, seconds=300):
        """Text and error of the running cell, up to its end or to the first match of `until`."""
        text, error, end = "", None, time.monotonic() + seconds
        while time.monotonic() < end:
            message = self.client.get_iopub_msg(timeout=seconds)
            if message["parent_header"].get("msg_id") != self.request:
                continue
            content = message["content"]
            text += content.get("text", "")
            error = error or (f"{content['ename']}: {content['evalue']}" if message["msg_type"] == "error" else None)
            if (until and re.search(until, text)) or content.get("execution_state") == "idle":
                return text, error
        pytest.fail(f"nothing within {seconds} s; so far: {text}")

    def state(self):
        return wb.open_run(self.run_folder).status["state"]


@pytest.fixture(scope="module")
def kernel(tmp_path_factory):
    started = Kernel(tmp_path_factory.mktemp("outputs"))
    yield started
    started.client.stop_channels()
    if started.manager.is_alive():
        started.manager.shutdown_kernel(now=True)


TRAIN = f"import workbench as wb\nrun = wb.train(wb.preset('smoke', {OVERRIDES}))\nprint(run, len(run.metrics))"


def test_interrupting_the_cell_stops_the_run_resumable_and_running_it_again_finishes_it(kernel):
    kernel.start(TRAIN)
    text, error = kernel.read(until=r"step +3/24")
    assert error is None and "step    1/24" in text
    kernel.manager.interrupt_kernel()
    text, error = kernel.read()
    assert error.startswith("KeyboardInterrupt")
    assert kernel.state() == "interrupted" and 3 <= wb.open_run(kernel.run_folder).status["step"] < 24
    kernel.start(TRAIN)
    text, error = kernel.read()
    assert error is None and kernel.state() == "finished"
    steps = [int(step) for step in re.findall(r"step +(\d+)/24", text)]
    assert steps == list(range(steps[0], 25)) and steps[0] > 3 and text.rstrip().endswith(" 24")


LIVE = """import os
from workbench.widgets import in_kernel, live_front_end
seen = [in_kernel(), live_front_end()]
for name, value in (("JPY_SESSION_NAME", "/nb.ipynb"), ("WORKBENCH_LIVE", "0")):
    os.environ[name] = value
    seen.append(live_front_end())
    os.environ.pop("WORKBENCH_LIVE", None)
del os.environ["JPY_SESSION_NAME"]
print(seen)"""


def test_a_front_end_is_live_when_jupyter_server_started_the_kernel_unless_overridden(kernel):
    kernel.start(LIVE)
    assert kernel.read() == ("[True, False, True, False]\n", None)


def test_a_failing_run_gives_one_error_with_reason_and_folder(kernel):
    kernel.start("import workbench as wb; wb.train(wb.preset('smoke', {'policy.model': '/no/such/model'}))")
    _, error = kernel.read()
    assert re.match(
        r"RuntimeError: the run failed: .*no/such/model.* \(run folder: .*runs/smoke-\w{8}\)", error, re.DOTALL
    )


def test_a_killed_kernel_leaves_no_trainer_behind(kernel):  # the last one: it ends the kernel
    kernel.start(TRAIN.replace("{'", "{'seed': 1, '", 1))
    kernel.read(until=r"step +2/24")
    (child,) = [p for p in psutil.Process(kernel.manager.provisioner.pid).children() if "workbench" in p.cmdline()]
    kernel.manager.signal_kernel(9)
    child.wait(timeout=20)
    (folder,) = [run for run in wb.list_runs(kernel.run_folder.parent) if run.config.seed == 1]
    assert folder.status["state"] == "interrupted"
