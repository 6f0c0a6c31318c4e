"""The quickstart from the command line to a click in its report, at the smallest scale."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.browser.conftest import click_plot
from workbench.report import read_card

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """(output of the command, folder of its outputs)."""
    folder = tmp_path_factory.mktemp("outputs")
    command = [sys.executable, "-m", "workbench", "quickstart", "scale=smoke", "steps=6", "--output", str(folder)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout, folder


def test_the_command_prints_each_step_and_the_reports_path_last(finished):
    output, folder = finished
    lines = output.splitlines()
    assert sum(line.startswith("step ") for line in lines) == 6
    (report,) = (folder / "reports").glob("*/00_quickstart.html")
    assert lines[-1] == f"report: {report}"
    assert read_card(report)["state"] == "done" and read_card(report)["parameters"] == {"scale": "smoke", "steps": 6}
    assert report.name in (folder / "reports" / "index.html").read_text()


def test_its_report_is_whole_offline(finished, watched):
    _, folder = finished
    opened = watched()
    page = opened.page
    (report,) = (folder / "reports").glob("*/00_quickstart.html")
    page.goto(report.as_uri())
    page.wait_for_selector(".wb-token")
    assert page.locator(".js-plotly-plot:has(.main-svg .scatterlayer path.js-line)").count() == 5
    click_plot(page, page.locator(".js-plotly-plot").nth(1), 0.999)
    page.wait_for_function("document.querySelector('.wb-step').textContent.startsWith('step 6 ')")
    opened.shot("quickstart-smoke", full_page=True)
    assert opened.wrong == [] and page.locator("pre.error").count() == 0
