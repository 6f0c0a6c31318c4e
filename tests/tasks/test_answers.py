"""The pool: verdicts within bounds of time and memory, processes replaced, order kept."""

import os
import subprocess
import sys

import pytest

from workbench.tasks.answers import Job, Pool
from workbench.tasks.verifiers import worker


@pytest.fixture
def pool():
    made = Pool(2, megabytes=1024)
    yield made
    made.close()


def compare(gold, candidate, seconds=0.5):
    return Job("math", {"gold": gold, "candidate": candidate}, seconds)


def test_outcomes_keep_the_order_of_the_jobs(pool):
    outcomes = pool.run([compare(str(n), f"\\frac{{{2 * n}}}{{{2 + n % 2}}}") for n in range(1, 9)])
    assert [outcome.result["correct"] for outcome in outcomes] == [False, True] * 4


def test_a_job_beyond_its_time_is_stopped_and_the_next_one_is_judged(pool):
    endless, good = compare("7", "9^{9^{9}}"), compare("\\frac12", "0.5")
    outcomes = pool.run([endless, good, endless, good])
    assert [outcome.error for outcome in outcomes] == ["time", "", "time", ""]
    assert outcomes[1].result == outcomes[3].result == {"correct": True, "key": "1/2"}


def test_a_job_that_fails_says_how_and_its_process_goes_on(pool):
    outcomes = pool.run([Job("math", {"gold": "1"}), Job("no such job", {}), compare("x", "x")])
    assert outcomes[0].error.startswith("TypeError") and outcomes[1].error.startswith("KeyError")
    assert outcomes[2].result["correct"]


def test_memory_is_bounded_in_the_process():
    if worker.resource is None or sys.platform != "linux":
        pytest.skip("only Linux bounds the address space")
    folder = os.path.dirname(worker.__file__)
    code = f"import sys; sys.path.insert(0, {folder!r}); import worker; worker._limit_memory(256); bytes(1 << 30)"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "MemoryError" in ended.stderr


def test_a_killed_process_is_replaced(pool):
    assert pool.run([compare("x", "x")])[0].result["correct"]
    process = next(slot for slot in pool._slots.queue if slot)
    process.popen.kill()
    assert pool.run([compare("x", "x")])[0].result["correct"]


def test_closing_ends_the_processes(pool):
    pool.run([compare("x", "x")] * 2)
    processes = [slot.popen for slot in pool._slots.queue if slot]
    pool.close()
    assert processes and all(process.poll() is not None for process in processes)


def test_processes_end_with_their_parent():
    code = (
        "from workbench.tasks.answers import *; import os; p = Pool(1)\n"
        "p.run([Job('math', {'gold': 'x', 'candidate': 'x'})])\n"
        "print(p._slots.queue[0].popen.pid, flush=True); os._exit(1)"
    )
    pid = int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False).stdout)
    for _ in range(200):
        if not _alive(pid):
            return
        os.sched_yield()
        subprocess.run(["sleep", "0.05"], check=True)
    pytest.fail("the process outlived its parent")


def _alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = f"/proc/{pid}/stat"
    return not (os.path.exists(status) and open(status).read().split(")")[1].split()[0] == "Z")
