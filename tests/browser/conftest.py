"""A headless Chromium for the tests of what people see; without one they are skipped."""

import os
import shutil
from pathlib import Path

import pytest

from tests.browser.jupyterlab import jupyterlab

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SHOTS = os.environ.get("WORKBENCH_SCREENSHOTS")  # a folder to keep screenshots in, for looking at


def pytest_collection_modifyitems(items):
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="session")
def chromium():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no Chromium found; install one (apt-get install chromium) to run the browser tests")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """(address, folder) of a JupyterLab that serves the folder."""
    pytest.importorskip("jupyterlab")
    folder = tmp_path_factory.mktemp("lab")
    with jupyterlab(folder) as address:
        yield address, folder


class Watched:
    """A page and everything that went wrong on it."""

    def __init__(self, page):
        self.page, self.wrong = page, []
        page.on("pageerror", lambda error: self.wrong.append(f"error: {error}"))
        page.on("requestfailed", lambda request: self.wrong.append(f"request failed: {request.url}"))
        page.on("request", lambda request: self._note_request(request.url))

    def _note_request(self, url):
        if not url.startswith(("file:", "data:", "blob:", "http://localhost", "http://127.0.0.1")):
            self.wrong.append(f"asked for {url}")

    def shot(self, name, **options):
        if SHOTS:
            self.page.screenshot(path=f"{SHOTS}/{name}.png", **options)


@pytest.fixture
def watched(chromium):
    """Function (scheme, offline) -> Watched page in a context of its own."""
    contexts = []

    def open_page(scheme="light", offline=True, **viewport):
        size = {"width": 1150, "height": 900} | viewport
        context = chromium.new_context(color_scheme=scheme, viewport=size)
        context.set_offline(offline)
        context.set_default_timeout(120_000)  # plotly.js takes its time on a machine that is busy
        contexts.append(context)
        return Watched(context.new_page())

    yield open_page
    for context in contexts:
        context.close()


def click_plot(page, plot, fraction, height=0.3):
    """Click `plot` with a real mouse, `fraction` of the way along its x axis. The pointer rests on the plot first, for
    plotly answers clicks on what is hovered."""
    plot.scroll_into_view_if_needed()
    box = plot.locator(".nsewdrag").first.bounding_box()
    x, y = box["x"] + fraction * box["width"], box["y"] + height * box["height"]
    page.mouse.move(x - 3, y)
    page.mouse.move(x, y)
    page.wait_for_timeout(400)
    page.mouse.down()
    page.mouse.up()


def place_point(plot, trace, index):
    """Where on the plot, as fractions (across, down), the point `index` of the trace called `trace` is drawn."""
    place = """(plot, [name, index]) => {
        const trace = plot._fullData.find(each => each.name === name), { xaxis, yaxis } = plot._fullLayout;
        const size = plot.querySelector(".nsewdrag").getBoundingClientRect();
        const at = index < 0 ? trace.x.length + index : index;
        return [xaxis.d2p(trace.x[at]) / size.width, yaxis.d2p(trace.y[at]) / size.height];
    }"""
    plot.scroll_into_view_if_needed()
    return plot.evaluate(place, [trace, index])


def click_point(page, plot, trace, index):
    """Click the point `index` of the trace called `trace`, wherever it is drawn."""
    across, down = place_point(plot, trace, index)
    click_plot(page, plot, across, height=down)
