"""The notebook's live side in a real JupyterLab: curves that grow, tokens that load, and the click between them."""

import nbformat
from nbformat.v4 import new_code_cell, new_notebook

from tests.browser.conftest import click_plot
from tests.browser.jupyterlab import DARK, open_in_lab, run_all
from tests.synthetic import write_run

# The run "trains" in the cell: rows and status appear as a trainer writes them, and the figure follows.
FOLLOW = """import json, time
from pathlib import Path
import workbench.widgets as widgets
from tests.synthetic import write_status
from workbench.store import open_run
finished, growing = Path({finished!r}), Path({growing!r})
curves = widgets.LiveCurves(growing)
display(curves.widget)
for step, line in enumerate((finished / "metrics.jsonl").read_text().splitlines(True), 1):
    with (growing / "metrics.jsonl").open("a") as file: file.write(line)
    write_status(growing, "running" if step < 40 else "finished", step=step)
    curves.poll()
    time.sleep(0.15)
"""
VIEW = "widgets.token_view(open_run(growing), groups=2, rollouts=3)"
FIGURE = "import workbench.plots as plots; plots.training_curves(open_run(growing).metrics, run=growing.name)"


def test_live_curves_grow_and_a_click_loads_that_steps_tokens(lab, watched):
    address, folder = lab
    finished = write_run(folder / "runs" / "finished-0000abcd")
    growing = write_run(folder / "runs" / "growing-0000abcd")
    (growing / "metrics.jsonl").unlink()
    follow = FOLLOW.format(finished=str(finished), growing=str(growing))
    cells = [new_code_cell(source) for source in (follow, VIEW, FIGURE)]
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(new_notebook(cells=cells, metadata=metadata), folder / "live.ipynb")

    opened = watched(offline=False, width=1400, height=1300)
    page = opened.page
    open_in_lab(page, address, "live")
    run_all(page)

    page.wait_for_selector(".js-plotly-plot .main-svg", timeout=60_000)
    page.wait_for_function(
        "/running, step \\d/.test(document.querySelector('.widget-label')?.textContent)", timeout=30_000
    )
    seen = {points_drawn(page) for _ in range(6) if page.wait_for_timeout(150) is None}
    opened.shot("lab-running")
    assert len(seen) > 2, "the figure grows while the cell is still running"
    page.wait_for_selector(".wb-token", timeout=60_000)
    assert page.locator(".widget-label").inner_text() == "finished, step 40 of 40"
    assert points_drawn(page) == 40

    assert page.locator(".wb-step").inner_text().startswith("step 8 ")
    click_plot(page, page.locator(".js-plotly-plot").first, 0.999)
    page.wait_for_function("document.querySelector('.wb-step').textContent.startsWith('step 40 ')", timeout=10_000)
    assert page.locator(".wb-rollout").count() == 6
    opened.shot("lab-live")
    click_plot(page, page.locator(".js-plotly-plot").nth(1), 0.001)  # a plain figure, painted by Lab itself
    page.wait_for_function("document.querySelector('.wb-step').textContent.startsWith('step 8 ')", timeout=10_000)
    assert page.locator(".wb-note").inner_text() == "Step 1 was clicked; the nearest kept step is 8."
    page.evaluate(DARK)
    page.wait_for_function("document.body.dataset.jpThemeLight === 'false'")
    page.wait_for_timeout(500)
    opened.shot("lab-dark")
    assert [wrong for wrong in opened.wrong if wrong.startswith("error")] == []


def points_drawn(page):
    return page.evaluate("document.querySelector('.js-plotly-plot').data?.[0]?.x?.length ?? 0")
