"""Grids: expanded and checked before anything runs; states from processes and folders; nothing lost, nothing twice."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
import yaml

from tests.synthetic import write_run, write_status
from workbench import preset
from workbench.config import ConfigError
from workbench.store import import_run
from workbench.store.files import write_json
from workbench.store.liveness import this_process
from workbench.study import cells as cells_module
from workbench.study import executors
from workbench.study.cells import Place, RunCell, Standing, execute_cell, spawn, standing
from workbench.study.executors import Resources, gpu_leases, run_local
from workbench.study.grid import GridFile, expand, grid_of, make_grid, parse_assignments, read_grid
from workbench.study.running import Plan, execute, plan

FOREIGN = Path(__file__).parents[1] / "data" / "foreign"


def test_lists_on_the_command_line_are_varied_and_single_values_are_the_same_everywhere():
    assert parse_assignments(["seed=0,1", "optimiser.learning_rate=1e-4", "methods=[grpo, clip_cov],[grpo]"]) == {
        "seed": [0, 1],
        "optimiser.learning_rate": [1e-4],
        "methods": [["grpo", "clip_cov"], ["grpo"]],
    }
    given = read_grid(None, ["seed=0,1", "training.steps=5"])
    assert given.vary == {"seed": [0, 1]} and given.base == {"training.steps": 5}


def test_a_file_is_expanded_and_assignments_win(tmp_path):
    path = tmp_path / "clip.yaml"
    path.write_text(
        yaml.safe_dump({"preset": "smoke", "base": {"training.steps": 3}, "vary": {"seed": [0, 1]},
                        "cells": [{"methods": ["grpo"]}, {"methods": ["grpo", "clip_cov"]}]})
    )  # fmt: skip
    given = read_grid(path, ["seed=7,8,9"])
    assert given.name == "clip" and len(list(expand(given))) == 6
    grid = make_grid(given, tmp_path)
    assert {cell.config.seed for cell in grid.cells} == {7, 8, 9}
    assert all(cell.config.training.steps == 3 for cell in grid.cells)
    assert grid.folder == make_grid(read_grid(path, ["seed=9,8,7"]), tmp_path).folder


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"vary": {"objective.clip_higt": [0.2, 0.3]}}, "2 of 2 cells.*did you mean 'clip_high'"),
        ({"preset": "smok"}, "did you mean 'smoke'"),
        ({"varry": {}}, "unknown field 'varry'; did you mean 'vary'"),
        ({"vary": {"storage.checkpoint_every": [1, 2]}}, "occur twice"),
        ({"notebook": "00_quickstart", "vary": {"sed": [0]}}, "has no parameter 'sed'; did you mean 'seed'"),
        ({"notebook": "00_quickstart", "vary": {"scale": ["smok"]}}, "'scale' is 'smok'"),
    ],
)
def test_every_cell_is_checked_before_anything_is_computed(content, said, tmp_path):
    path = tmp_path / "grid.yaml"
    path.write_text(yaml.safe_dump({"preset": "smoke"} | content))
    with pytest.raises(ConfigError, match=f"(?s){said}"):
        make_grid(read_grid(path), tmp_path)
    assert list(tmp_path.iterdir()) == [path]


@dataclass(frozen=True)
class Script:
    """A cell that runs a few lines of Python; it is done when its file says so."""

    identifier: str
    code: str
    root: Path
    varied: dict = field(default_factory=dict)

    @property
    def output(self):
        return self.root / self.identifier

    def command(self, folder):
        return [f"from pathlib import Path\noutput = Path({str(self.output)!r})\n{self.code}"]

    def own_standing(self):
        return Standing("done") if self.output.exists() else None


@pytest.fixture
def scripts(monkeypatch, tmp_path):
    """Function (code, …) -> a grid of cells with that code."""
    monkeypatch.setattr(cells_module, "PROGRAM", (sys.executable, "-c"))
    monkeypatch.setattr(executors, "starter", lambda threads: nullcontext(spawn))
    return lambda *codes: grid_of("g", [Script(f"c{i}", code, tmp_path) for i, code in enumerate(codes)], tmp_path)


def states(grid):
    return [stands.state for stands in grid.standings()]


DONE, FAIL = "output.touch()", "raise ValueError('no luck')"


def test_one_failure_stops_nothing_and_only_failed_runs_nothing_else(scripts):
    lines, grid = [], scripts(DONE, FAIL, "import os, signal; os.kill(os.getpid(), signal.SIGKILL)", DONE)
    assert states(grid) == ["queued"] * 4
    assert execute(plan(grid), log=lines.append) is False
    assert states(grid) == ["done", "failed", "killed", "done"]
    assert grid.standings()[1].reason == "ValueError: no luck" and "SIGKILL" in grid.standings()[2].reason
    assert len(lines) == 4 and any("c1: failed (ValueError: no luck)" in line for line in lines)
    again = plan(grid, only_failed=True)
    assert [cell.identifier for cell in again.to_do] == ["c1", "c2"]
    mended = grid_of("g", [Script(c.identifier, DONE, c.root) for c in grid.cells], grid.cells[0].root)
    assert execute(plan(mended, only_failed=True), log=lines.append) and states(mended) == ["done"] * 4
    assert plan(mended).to_do == () and "nothing to do" in str(plan(mended))


def test_fail_fast_starts_nothing_more(scripts):
    grid = scripts(FAIL, DONE, DONE)
    execute(plan(grid), resources=Resources(jobs=1), fail_fast=True, log=lambda line: None)
    assert states(grid) == ["failed", "queued", "queued"]


SLOW = """
import time
try:
    for _ in range(600): time.sleep(.05)
except KeyboardInterrupt:
    output.with_suffix('.stopped').touch(); raise SystemExit(130)
"""


@pytest.fixture
def interruptible():
    """What the shell starts in the background may be deaf to SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_an_interrupt_stops_children_at_their_next_step_and_leaves_the_rest_queued(scripts, tmp_path, interruptible):
    grid = scripts(SLOW, SLOW, DONE)
    interrupt = lambda: (time.sleep(1.5), os.kill(os.getpid(), signal.SIGINT))  # noqa: E731
    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        execute(plan(grid), resources=Resources(jobs=2), log=lambda line: None)
    assert sorted(path.name for path in tmp_path.glob("*.stopped")) == ["c0.stopped", "c1.stopped"]
    assert states(grid) == ["interrupted", "interrupted", "queued"]


def test_each_cell_sees_only_the_gpus_it_leased(scripts, monkeypatch, tmp_path):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3,4")
    code = "import os, time; time.sleep(.4); output.write_text(os.environ['CUDA_VISIBLE_DEVICES'])"
    grid = scripts(*[code] * 5)
    assert [lease["CUDA_VISIBLE_DEVICES"] for lease in gpu_leases(2)] == ["0,1", "2,3"]
    run_local(grid.cells, grid.place, lambda *_: None, Resources(gpus=2), False)
    assert {cell.output.read_text() for cell in grid.cells} == {"0,1", "2,3"}
    with pytest.raises(ValueError, match="asks for 6 GPUs and there are 5"):
        run_local(grid.cells, grid.place, lambda *_: None, Resources(gpus=6), False)


def test_a_run_cell_stands_as_its_folder_and_its_record_say(tmp_path):
    cell = RunCell(preset("smoke"), tmp_path / "runs")
    place = Place(tmp_path / "records")
    assert standing(cell, place) == Standing("queued")
    write_run(cell.output)
    assert standing(cell, place).state == "done"
    write_status(cell.output, "running", step=3)
    assert standing(cell, place) == Standing("running", 3, 40)
    status = json.loads((cell.output / "status.json").read_text())
    (cell.output / "status.json").write_text(json.dumps(status | {"process_started": 1.0}))
    assert standing(cell, place).state == "lost"
    write_json(place.of(cell) / "record.json", this_process() | {"code": -9})
    assert standing(cell, place).state == "killed" and standing(cell, place).step == 3
    write_json(place.of(cell) / "record.json", this_process())
    assert standing(cell, place).state == "running", "the process that executes it has only just begun"
    write_status(cell.output, "failed", step=3, reason="disk full")
    write_json(place.of(cell) / "record.json", this_process() | {"code": 1})
    assert standing(cell, place) == Standing("failed", 3, 40, "disk full")


def test_the_plan_estimates_from_runs_like_the_cells(tmp_path):
    given = GridFile(preset="smoke", vary={"seed": [0, 1]}, base={"training.steps": 40})
    grid = make_grid(given, tmp_path)
    assert "no estimate" in str(plan(grid))
    write_run(grid.cells[0].output)
    (grid.cells[0].output / "timings.jsonl").write_text(
        "".join(json.dumps({"step": step, "time/step": 2.0}) + "\n" for step in range(1, 41))
    )
    chosen = plan(grid)
    assert isinstance(chosen, Plan) and chosen.seconds == 80 and len(chosen.to_do) == 1
    assert "2 cells, 1 of them left alone, 1 to execute; about 80 s" in str(chosen)
    import_run(FOREIGN / "verl", root=tmp_path / "runs")
    assert plan(grid).seconds == 80, "a run of another tool, which has no config of ours, is no measure"


def test_real_runs_survive_kills_and_the_command_continues_them(tmp_path):
    """The grid's process is killed outright mid-way: states say so, and the same command finishes every run."""
    fields = ["seed=0,1", "training.steps=12", "storage.checkpoint_every=1", "evaluation.sets=[]"]
    command = [sys.executable, "-m", "workbench", "grid", "--preset", "smoke", *fields, "--output", str(tmp_path)]
    grid = make_grid(read_grid(None, fields, {"preset": "smoke"}), tmp_path)
    first = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    wait_until(lambda: all((stands.step or 0) >= 2 for stands in grid.standings()))
    children = psutil.Process(first.pid).children(recursive=True)
    for process in [psutil.Process(first.pid), *children]:
        process.kill()
    first.wait()
    psutil.wait_procs(children, 10)
    assert set(states(grid)) <= {"lost", "done"} and "lost" in states(grid)
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.returncode == 0 and states(grid) == ["done"] * 2
    assert "lost" in again.stdout and "2 done" in again.stdout
    for cell in grid.cells:
        steps = [json.loads(line)["step"] for line in (cell.output / "metrics.jsonl").read_text().splitlines()]
        assert steps == list(range(1, 13))


def wait_until(condition, seconds=240):
    for _ in range(seconds * 10):
        if condition():
            return
        time.sleep(0.1)
    raise AssertionError("it did not happen in time")


def test_execute_cell_passes_the_childs_exit_code_on(scripts):
    grid = scripts("raise SystemExit(3)")
    assert execute_cell(grid.cells[0], grid.place) == 3
    assert json.loads((grid.place.of(grid.cells[0]) / "record.json").read_text())["code"] == 3
