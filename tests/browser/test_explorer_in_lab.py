"""The explorer in a real JupyterLab: run all, click a point, move a slider, brush, watch a run that trains apart."""

import json
import os
import signal
import subprocess
import sys
import time

import nbformat
import pytest

from tests.browser.conftest import click_point
from tests.browser.jupyterlab import REPOSITORY, open_in_lab, run_all, settled, with_parameters
from tests.synthetic import HOSTILE, write_run
from workbench import preset
from workbench.store import open_run

NOTEBOOK = REPOSITORY / "notebooks" / "01_explore_runs.ipynb"
PATIENCE = 120_000  # milliseconds: machines under test are busy
CONFIG = {"training.steps": 3, "storage.keep_rollouts_every": 1, "storage.measure_change_share": 1.0,
          "optimiser.learning_rate": 3e-4, "evaluation.sets": []}  # fmt: skip


def start_training(folder, root, **overrides):
    """`python -m workbench train` in a process of its own, as a batch job would run it; returns it and the run's
    folder."""
    config = preset("smoke", CONFIG | overrides)
    path = folder / f"{config.run_id}.yaml"
    path.write_text(config.to_yaml())
    command = [sys.executable, "-m", "workbench", "train", "--config", str(path), "--root", str(root)]
    child = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, env=os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    )
    return child, root / config.run_id


def open_notebook(opened, address, folder, name, **parameters):
    """Open a copy of the notebook with these parameters and run all its cells."""
    nbformat.write(with_parameters(NOTEBOOK, **parameters), folder / f"{name}.ipynb")
    page = opened.page
    page.set_default_timeout(PATIENCE)
    open_in_lab(page, address, name)
    run_all(page)
    return page


def step_shown(page):
    return page.locator(".wb-step").first.inner_text().split(" · ")[0]


def choose_view(page, title):
    page.get_by_role("button", name=title, exact=True).click()
    settled(page)


@pytest.fixture(scope="module")
def trained(lab):
    """A folder with one run that was trained (its what-if needs a policy) and one with hostile text."""
    _, folder = lab
    root = folder / "explored"
    child, _ = start_training(folder, root)
    assert child.wait(300) == 0
    write_run(root / "hostile-0000abcd", hostile=True)
    return root


def test_from_a_curve_to_tokens_and_through_the_views(lab, trained, watched):
    address, folder = lab
    opened = watched(offline=False, width=1400, height=1300)
    page = open_notebook(opened, address, folder, "explore", runs=str(trained))
    page.wait_for_selector(".wb-token")
    page.wait_for_selector(".js-plotly-plot .main-svg")
    assert page.locator(".wb-table tbody tr").first.inner_text().startswith("\t") and step_shown(page) == "step 8"

    # Hostile text stays text.
    assert page.locator(".wb-view img, .wb-table img").count() == 0 and page.title() != "owned"
    assert page.locator(".wb-token").first.text_content() == HOSTILE

    click_point(page, page.locator(".js-plotly-plot").first, "hostile-0000abcd", -1)
    page.wait_for_function("document.querySelector('.wb-step').textContent.startsWith('step 40 ')")
    page.locator(".wb-view").first.focus()
    page.keyboard.press("ArrowLeft")
    page.wait_for_function("document.querySelector('.wb-step').textContent.startsWith('step 32 ')")
    opened.shot("explorer-text")

    page.locator(".widget-dropdown:has-text('run') select").last.select_option(index=1)
    settled(page)
    choose_view(page, "Ledger")
    assert "= sum of the bars" in page.locator(".jp-OutputArea:has(.wb-view)").inner_text()
    opened.shot("explorer-ledger")

    choose_view(page, "What-if")
    before = page.locator("p[role=status]").first.inner_text()
    assert "0 of " in before
    handle = page.locator(".widget-hslider:has-text('λ') .noUi-handle")
    handle.focus()
    for _ in range(30):
        page.keyboard.press("ArrowLeft")
    page.wait_for_function(f"document.querySelector('p[role=status]').innerText !== {json.dumps(before)}")
    settled(page)
    assert "get another gradient" in page.locator("p[role=status]").first.inner_text()
    opened.shot("explorer-what-if")

    choose_view(page, "Quadrants")
    plot = page.locator(".js-plotly-plot").nth(1)
    plot.scroll_into_view_if_needed()
    box = plot.locator(".nsewdrag").first.bounding_box()
    page.mouse.move(box["x"] + 5, box["y"] + 5)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.99, box["y"] + box["height"] * 0.45, steps=8)
    page.mouse.up()
    page.wait_for_selector(".wb-mark")
    opened.shot("explorer-quadrants")
    assert [wrong for wrong in opened.wrong if wrong.startswith("error")] == []


def test_a_run_is_watched_while_it_trains_elsewhere_and_reported_when_it_is_killed(lab, watched):
    address, folder = lab
    child, run = start_training(folder, folder / "watched", **{"training.steps": 5000, "seed": 3})
    try:
        for _ in range(1200):
            if (run / "metrics.jsonl").exists() and open_run(run).rollout_steps:
                break
            time.sleep(0.1)
        opened = watched(offline=False, width=1400, height=1300)
        write_run(folder / "one" / "made-up-0000abcd")
        page = open_notebook(opened, address, folder, "watch", runs=str(folder / "one"), watched=str(run))
        state = page.locator("p[role=status]", has_text="running, step")
        state.wait_for()
        first = state.inner_text()
        page.wait_for_function(
            "first => [...document.querySelectorAll('p[role=status]')].some(p => /running, step/.test(p.innerText) && "
            "p.innerText !== first)", arg=first
        )  # fmt: skip
        opened.shot("watch-running")
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    killed = time.time()
    page.locator("p[role=status]", has_text="lost at step").wait_for(timeout=60_000)
    print(f"reported {time.time() - killed:.1f} s after the kill")
    opened.shot("watch-killed")
