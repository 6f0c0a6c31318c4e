"""Executing notebooks for real: done, failed, killed, and output as it happens."""

import json
import subprocess
import sys

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from workbench.report import read_card
from workbench.study.notebooks import NotebookFailed, execute_notebook

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
