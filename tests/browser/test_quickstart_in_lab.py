"""The quickstart notebook itself in JupyterLab: the run trains in a child process, a live figure follows it, the token
view loads steps from the kernel, and interrupting the cell stops the run cleanly."""

import json
from pathlib import Path

import nbformat
import pytest

import workbench as wb
from tests.browser.conftest import click_plot
from tests.browser.jupyterlab import IDLE, open_in_lab, run_all, with_parameters

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "00_quickstart.ipynb"


def open_notebook(opened, address, folder, **parameters):
    """Open a copy of the quickstart with these parameters and run all its cells."""
    name = f"quickstart-{parameters['seed']}"
    nbformat.write(with_parameters(NOTEBOOK, **parameters), folder / f"{name}.ipynb")
    page = opened.page
    open_in_lab(page, address, name)
    run_all(page)
    return page


def run_of(folder):
    (path,) = (folder / "outputs" / "runs").iterdir()
    return wb.open_run(path)


@pytest.fixture
def outputs(lab):
    """The lab's address and folder, with no runs left from another test."""
    address, folder = lab
    for path in sorted((folder / "outputs").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    return address, folder


def test_all_cells_run_with_a_live_figure_and_a_live_token_view(outputs, watched):
    address, folder = outputs
    opened = watched(offline=False, width=1400, height=1300)
    page = open_notebook(opened, address, folder, scale="smoke", seed=1, steps=30)
    page.wait_for_function(
        "/running, step \\d/.test(document.querySelector('.widget-label')?.textContent)", timeout=120_000
    )
    page.wait_for_selector(".wb-token", timeout=120_000)
    page.wait_for_function(IDLE, timeout=60_000)
    assert page.locator(".widget-label").text_content() == "finished, step 30 of 30"
    live = page.locator(".js-plotly-plot").nth(1)
    live.scroll_into_view_if_needed()
    assert live.evaluate("plot => plot.data[0].x.length") == 30
    opened.shot("quickstart-in-lab-live")
    assert page.locator("[data-mime-type='application/vnd.jupyter.stderr']").count() == 0
    assert run_of(folder).status["state"] == "finished"
    curves = page.locator(".js-plotly-plot").nth(2)
    click_plot(page, curves, 0.999)
    page.wait_for_function("document.querySelector('.wb-step').textContent.startsWith('step 30 ')", timeout=10_000)
    opened.shot("quickstart-in-lab", full_page=True)


def test_interrupting_the_cell_stops_the_run_cleanly(outputs, watched):
    address, folder = outputs
    opened = watched(offline=False, width=1400, height=1300)
    page = open_notebook(opened, address, folder, scale="smoke", seed=2, steps=5000)
    page.wait_for_function(
        "/running, step [1-9]/.test(document.querySelector('.widget-label')?.textContent)", timeout=120_000
    )
    page.evaluate("void window.jupyterapp.commands.execute('notebook:interrupt-kernel')")
    run = run_of(folder)
    for _ in range(120):
        status = json.loads((run.path / "status.json").read_text())
        if status["state"] != "running":
            break
        page.wait_for_timeout(500)
    opened.shot("quickstart-in-lab-interrupted")
    assert status["state"] == "interrupted"
    assert status["step"] == max(run.checkpoints) == run.metrics["step"].max()
