"""Executing notebooks for real: done, failed, killed, and output as it happens."""

import json
import signal
import subprocess
import sys
import time

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from workbench.report import read_card
from workbench.study.executors import Resources
from workbench.study.grid import make_grid, read_grid
from workbench.study.notebooks import NotebookFailed, execute_notebook, executions
from workbench.study.running import execute, plan

PARAMETERS = "count: int = 1  # how often"


def write_notebook(path, *sources):
    parameters = new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]})
    cells = [new_markdown_cell("# Tiny"), parameters, *map(new_code_cell, sources)]
    nbformat.write(new_notebook(cells=cells), path)
    return path


def manifest_of(executed):
    return json.loads((executed.notebook.parent / "manifest.json").read_text())


def test_done_leaves_notebook_manifest_report_and_index(tmp_path, capsys):
    show = "import os; print('count', count, *(os.environ['WORKBENCH_' + name] for name in ('LIVE', 'OUTPUTS')))"
    path = write_notebook(tmp_path / "tiny.ipynb", show)
    executed = execute_notebook(path, {"count": 3}, tmp_path / "out")
    assert capsys.readouterr().out == f"count 3 0 {tmp_path / 'out'}\n"
    manifest = manifest_of(executed)
    assert manifest["state"] == executed.state == "done" and manifest["parameters"] == {"count": 3}
    assert executed.report == tmp_path / "out" / "reports" / executed.notebook.parent.name / "tiny.html"
    assert executed.notebook.parent.name.startswith("count=3-")
    assert read_card(executed.report)["parameters"] == {"count": 3}
    assert "Tiny" in (tmp_path / "out" / "reports" / "index.html").read_text()


def test_failure_keeps_the_partial_notebook_and_reports_the_error(tmp_path):
    path = write_notebook(
        tmp_path / "tiny.ipynb", "print('before')", "raise ValueError('no <b>luck</b>')", "print('after')"
    )
    with pytest.raises(NotebookFailed, match="ValueError: no <b>luck</b>") as failure:
        execute_notebook(path, {}, tmp_path / "out")
    executed = failure.value.executed
    page = executed.report.read_text()
    assert manifest_of(executed)["state"] == "failed"
    assert "before" in page and "no &lt;b&gt;luck" in page and "<b>luck" not in page
    assert nbformat.read(executed.notebook, 4).cells[-1].outputs == []


def test_an_execution_whose_report_cannot_be_written_is_not_done(tmp_path, monkeypatch):
    def broken(*_given, **_named):
        raise ValueError("no ink")

    monkeypatch.setattr("workbench.study.notebooks.export_html", broken)
    with pytest.raises(ValueError, match="no ink"):
        execute_notebook(write_notebook(tmp_path / "tiny.ipynb", "1"), {}, tmp_path / "out")
    (row,) = executions(tmp_path / "out").to_dict("records")
    assert row["state"] == "failed" and row["reason"] == "its report could not be written: no ink"


def test_a_killed_kernel_is_reported_as_killed_although_papermill_saves_it_as_completed(tmp_path):
    path = write_notebook(tmp_path / "tiny.ipynb", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    with pytest.raises(NotebookFailed, match="kernel died") as failure:
        execute_notebook(path, {}, tmp_path / "out")
    assert manifest_of(failure.value.executed)["state"] == "killed"
    assert read_card(failure.value.executed.report)["state"] == "killed"


def test_output_streams_while_the_notebook_runs(tmp_path):
    gate = tmp_path / "gate"
    wait = (
        "import pathlib, time\nprint('ready', flush=True)\n"
        f"while not pathlib.Path({str(gate)!r}).exists(): time.sleep(.05)"
    )
    path = write_notebook(tmp_path / "tiny.ipynb", wait, "print('end')")
    arguments = f"{str(path)!r}, {{}}, {str(tmp_path / 'out')!r}"
    call = f"from workbench.study.notebooks import execute_notebook; execute_notebook({arguments})"
    process = subprocess.Popen([sys.executable, "-c", call], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "ready\n"  # the notebook cannot have ended: the gate is still closed
        (manifest,) = (tmp_path / "out" / "notebooks" / "tiny").glob("*/manifest.json")
        assert json.loads(manifest.read_text())["state"] == "running"
        gate.touch()
        assert process.communicate(timeout=60)[0] == "end\n" and process.returncode == 0
    finally:
        process.kill()


WAIT = "import pathlib, time; pathlib.Path('{gate}').touch(); time.sleep(600)"


@pytest.mark.parametrize(("sent", "state"), [(signal.SIGKILL, "lost"), (signal.SIGTERM, "interrupted")])
def test_an_execution_whose_process_is_ended_says_so_although_its_notebook_says_running(tmp_path, sent, state):
    gate, out = tmp_path / "gate", tmp_path / "out"
    path = write_notebook(tmp_path / "tiny.ipynb", WAIT.format(gate=gate))
    process = subprocess.Popen([sys.executable, "-m", "workbench", "notebook", str(path), "--output", str(out)])
    for _ in range(1200):
        if gate.exists():
            break
        time.sleep(0.1)
    assert executions(out)["state"].tolist() == ["running"]
    process.send_signal(sent)
    process.wait(120)
    assert executions(out)["state"].tolist() == [state] and executions(out)["reason"][0]
    if state == "interrupted":
        assert process.returncode == 130


@pytest.fixture
def small_disk(tmp_path):
    """A file system of a megabyte; skipped where mounting is not allowed."""
    folder = tmp_path / "small"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True).returncode:
        pytest.skip("mounting a small file system is not allowed here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_is_told_as_such_and_the_manifest_still_tells_it(tmp_path, small_disk):
    path = write_notebook(tmp_path / "tiny.ipynb", "print('x' * 3_000_000)")
    with pytest.raises(NotebookFailed, match="disk full; free some space"):
        execute_notebook(path, {}, small_disk)
    assert executions(small_disk)["state"].tolist() == ["failed"]
    assert executions(small_disk)["reason"][0].startswith("disk full")


@pytest.mark.parametrize(("given", "said"), [(["cuont=2"], "did you mean 'count'"), (["count=x"], "needs int")])
def test_a_wrong_parameter_costs_nothing(tmp_path, given, said):
    path = write_notebook(tmp_path / "tiny.ipynb", "print(count)")
    command = [
        sys.executable,
        "-m",
        "workbench",
        "notebook",
        str(path),
        "-p",
        *given,
        "--output",
        str(tmp_path / "out"),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1 and said in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.notebooks
def test_32_notebooks_at_once_do_not_mix(tmp_path):
    path = write_notebook(tmp_path / "tiny.ipynb", "import os; print('count is', count)\nos.getpid()")
    given = read_grid(None, [f"count={','.join(map(str, range(32)))}"], {"notebook": str(path)})
    grid = make_grid(given, tmp_path / "out")
    assert execute(plan(grid), resources=Resources(jobs=32), log=lambda line: None)
    kernels = set()
    for cell in grid.cells:
        cells = nbformat.read(cell.output / "notebook.ipynb", 4).cells
        assert cells[-1].outputs[0].text == f"count is {cell.varied['count']}\n"
        kernels.add(cells[-1].outputs[1].data["text/plain"])
        assert read_card(tmp_path / "out" / "reports" / cell.key / "tiny.html")["state"] == "done"
    assert len(kernels) == 32
