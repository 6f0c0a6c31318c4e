"""Where the cells of a grid are executed: on this machine, on a Ray cluster, or through Slurm.

All three call `execute_cell` for every cell, keep going when one fails, and leave everything resumable when they are
interrupted. None of them schedules by itself: threads, Ray and Slurm do.
"""

from __future__ import annotations

import io
import os
import queue
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from workbench.study.cells import Cell, Place, execute_cell, spawn
from workbench.study.launch import stop_child
from workbench.study.warm import WarmProcess

Report = Callable[[Cell, BaseException | None], None]
"""Called with every cell whose execution has ended, and with what kept it from being executed at all, if anything."""
GPU_VARIABLE = "CUDA_VISIBLE_DEVICES"
TIME_LIMITS = 100
"""How often a Slurm job may run out of time and be queued again; submitit's own limit of three would end long runs."""


@dataclass(frozen=True)
class Resources:
    """What cells get: `jobs` at a time (0: as many as there are GPUs or cores for), `gpus` and `cpus` each."""

    jobs: int = 0
    gpus: int = 0
    cpus: int = 1


def run_local(cells: Sequence[Cell], place: Place, report: Report, resources: Resources, fail_fast: bool) -> None:
    """Execute cells here, each in a process of its own that sees only the GPUs it leased.

    Raises `ValueError` if cells ask for more GPUs than there are. Interrupted, it stops every child at its next step.
    """
    leases = gpu_leases(resources.gpus)
    jobs = min(resources.jobs or len(leases) or cores(), len(cells), len(leases) or len(cells)) or 1
    free: queue.SimpleQueue[dict[str, str]] = queue.SimpleQueue()
    for index in range(jobs):
        free.put(leases[index] if leases else {})
    stopped, closed = threading.Event(), threading.Event()
    threads = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(max(1, cores() // jobs)))}

    def execute(cell: Cell, start: Callable) -> int | None:
        if closed.is_set():
            return None
        lease, code = free.get(), 1
        try:
            code = execute_cell(cell, replace(place, environment=threads | lease), stopped.is_set, start)
            return code
        finally:
            free.put(lease)
            if fail_fast and code:
                closed.set()

    with starter(threads) as start, ThreadPoolExecutor(jobs, "cell") as pool:
        running = {pool.submit(execute, cell, start): cell for cell in cells}
        try:
            for future, cell in _as_they_end(running):
                if future.exception() or future.result() is not None:
                    report(cell, future.exception())
        except BaseException:
            closed.set()
            stopped.set()
            raise


@contextmanager
def starter(threads: dict[str, str]) -> Iterator[Callable]:
    """What starts the children of `run_local`: a process forks them that has imported everything, where the system
    takes it well to fork a process that has torch. `threads`: the environment that says how many threads they use."""
    if sys.platform != "linux":
        yield spawn
        return
    with WarmProcess({**os.environ, "PYTHONUNBUFFERED": "1", **threads}) as warm:
        yield warm.start


def run_ray(
    cells: Sequence[Cell],
    place: Place,
    report: Report,
    resources: Resources,
    fail_fast: bool,
    address: str = "auto",
    bring_back: bool = False,
) -> None:
    """Execute cells as tasks of a Ray cluster, which must see the grid's folders under the same paths.

    A cell whose node is lost is scheduled again and continues from its last checkpoint. With `bring_back` nodes share
    no storage: a cell works in a scratch folder of its node, its results come back through Ray when it ends, and after
    a lost node it begins anew.
    """
    import ray

    ray.init(address=address, ignore_reinit_error=True, log_to_driver=False)
    remote = ray.remote(num_cpus=resources.cpus, num_gpus=resources.gpus, max_retries=-1)
    task = remote(_elsewhere if bring_back else execute_cell)
    running = {task.remote(cell, place): cell for cell in cells}
    try:
        while running:
            (done,), _ = ray.wait(list(running), num_returns=1)
            cell, code, error = running.pop(done), 1, None
            try:
                code = ray.get(done)
                if bring_back:
                    code, archive = code
                    _unpack(archive, [cell.output.parent, place.folder])
            except ray.exceptions.RayError as failure:
                error = failure
            report(cell, error)
            if fail_fast and code:
                break
    finally:
        for reference in running:
            ray.cancel(reference)
        if running:
            ray.wait(list(running), num_returns=len(running), timeout=60)


def run_slurm(
    cells: Sequence[Cell],
    place: Place,
    report: Report,
    resources: Resources,
    fail_fast: bool,
    cluster: str = "slurm",
    options: dict | None = None,
    detach: bool = False,
) -> None:
    """Execute cells as one job array through submitit, on folders that all nodes share.

    `options` go to submitit (`slurm_partition`, `timeout_min`, …). A job that is pre-empted or runs out of time is
    queued again and continues from its checkpoint; it is told `slurm_signal_delay_s` before (90 s unless given), so
    steps that take longer go on from an older one. With `detach` it returns once the jobs are submitted.
    """
    import submitit

    executor = submitit.AutoExecutor(place.folder / "slurm", cluster=cluster, slurm_max_num_timeout=TIME_LIMITS)
    settings = {"cpus_per_task": resources.cpus, "gpus_per_node": resources.gpus} | (options or {})
    if resources.jobs and cluster == "slurm":
        settings["slurm_array_parallelism"] = resources.jobs
    executor.update_parameters(**settings)
    with executor.batch():
        jobs = [executor.submit(SlurmCell(), cell, place) for cell in cells]
    if detach:
        return
    ends = ThreadPoolExecutor(len(jobs), "job")
    running = {ends.submit(job.wait): (job, cell) for job, cell in zip(jobs, cells, strict=True)}
    try:
        for _, (job, cell) in _as_they_end(running):
            report(cell, job.exception())
            if fail_fast and (job.exception() or job.result()):
                break
    finally:
        for job in jobs:
            if not job.done():
                job.cancel()
        ends.shutdown()


class SlurmCell:
    """`execute_cell` as submitit wants it: asked to vacate its node, it stops the run at its next step, where the run
    writes its checkpoint, and is submitted again as it was."""

    child: subprocess.Popen | None = None

    def __call__(self, cell: Cell, place: Place) -> int:
        return execute_cell(cell, place, start=self._start)

    def checkpoint(self, cell: Cell, place: Place):
        from submitit.helpers import DelayedSubmission

        if self.child is not None:
            stop_child(self.child)
        return DelayedSubmission(SlurmCell(), cell, place)

    def _start(self, arguments: Sequence[str], log: Path, environment: Mapping[str, str]) -> subprocess.Popen:
        """Slurm sends submitit's signal to every process of the job; the run, which it would kill, is deaf to it."""
        from submitit import JobEnvironment

        asked_to_vacate = {signal.Signals[f"SIG{JobEnvironment.USR_SIG}"]}
        signal.pthread_sigmask(signal.SIG_BLOCK, asked_to_vacate)  # children inherit what is blocked
        try:
            self.child = spawn(arguments, log, environment)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, asked_to_vacate)
        return self.child


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def gpu_leases(each: int) -> list[dict[str, str]]:
    """Disjoint sets of `each` GPUs as environments; [] if cells need none. Raises `ValueError` if there are too few."""
    if each == 0:
        return []
    import torch

    visible = os.environ.get(GPU_VARIABLE)
    names = visible.split(",") if visible else [str(index) for index in range(torch.cuda.device_count())]
    if len(names) < each:
        raise ValueError(f"every cell asks for {each} GPUs and there are {len(names)}; lower --gpus")
    groups = zip(*[iter(names)] * each, strict=False)
    return [{GPU_VARIABLE: ",".join(group)} for group in groups]


def _as_they_end(running: dict[Future, object]) -> Iterable[tuple[Future, object]]:
    """Futures with what they stand for, as they end; unlike `as_completed` an interrupt is seen at once."""
    left = dict(running)
    while left:
        done, _ = wait(left, timeout=0.5, return_when=FIRST_COMPLETED)
        for future in done:
            yield future, left.pop(future)


def _elsewhere(cell: Cell, place: Place) -> tuple[int, bytes]:
    """Execute `cell` in a scratch folder and return its exit code and an archive of what it and its record wrote."""
    with tempfile.TemporaryDirectory(prefix="workbench-") as scratch:
        here = replace(cell, root=Path(scratch) / "outputs")
        records = Place(Path(scratch) / "records", place.environment)
        code = execute_cell(here, records)
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w:gz") as tar:
            for folder in (here.output, records.of(here)):
                if folder.exists():
                    tar.add(folder, arcname=f"{'0' if folder == here.output else '1'}/{folder.name}")
    return code, archive.getvalue()


def _unpack(archive: bytes, targets: list[Path]) -> None:
    """Put the parts `0/…`, `1/…` of an archive under `targets`; paths that lead out of them are refused."""
    with tempfile.TemporaryDirectory(prefix="workbench-") as scratch:
        with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as tar:
            tar.extractall(scratch, filter="data")
        for index, target in enumerate(targets):
            for folder in sorted((Path(scratch) / str(index)).glob("*")):
                shutil.copytree(folder, target / folder.name, dirs_exist_ok=True)
