"""Text of models and of other tools' logs in every view of the explorer, light and dark: it stays text, nothing runs,
nothing breaks out of its place; and what a log did not record is said."""

import json
import shutil

import pandas as pd
import pytest

from tests.browser.jupyterlab import DARK, IDLE
from tests.browser.test_explorer_in_lab import choose_view, open_notebook
from tests.store.test_importers import FOREIGN
from tests.synthetic import ATTACKS, write_run
from workbench.store import import_run, open_run
from workbench.widgets.views import VIEWS

MEGABYTE = 1_000_000
METRIC = "<img src=x onerror=document.title='owned'>"
INJECTED = ".jp-OutputArea :is(img, script, iframe, a[href^='javascript'], svg image[href='x'])"
BROAD = """() => {
    const output = document.querySelector(".jp-OutputArea:has(.wb-table)"), edge = output.getBoundingClientRect().right;
    return [...output.querySelectorAll(".wb-view, .wb-table-box, .js-plotly-plot, p, pre, .wb-text, h4")]
        .filter(node => node.getBoundingClientRect().right > edge + 2).map(node => node.className || node.tagName);
}"""


@pytest.fixture(scope="module")
def root(lab):
    """Two runs of hostile text, one response of a megabyte among it, and a hostile log of TRL, imported."""
    _, folder = lab
    root = folder / "hostile"
    for seed in (0, 1):
        run = write_run(root / f"hostile-{seed}-0000abcd", seed=seed, hostile=True)
        make_one_response_long(run)
    trl = folder / "trl"
    shutil.copytree(FOREIGN / "trl", trl)
    state = json.loads((trl / "trainer_state.json").read_text())
    for entry in state["log_history"]:
        entry[METRIC] = 1.0
    (trl / "trainer_state.json").write_text(json.dumps(state))
    for path in (trl / "completions").iterdir():
        table = pd.read_parquet(path)
        table["completion"] = ["".join(ATTACKS) + "x" * MEGABYTE] * len(table)
        table.to_parquet(path)
    import_run(trl, root=root)
    return root


def make_one_response_long(run):
    """The first response of the last kept step becomes a megabyte without a space, and one of its tokens as long."""
    last = open_run(run).rollout_steps[-1]
    paths = [run / "rollouts" / f"{last:06d}.{name}.parquet" for name in ("sequences", "tokens")]
    sequences, tokens = map(pd.read_parquet, paths)
    own = tokens[tokens["sequence"] == 0]
    own = pd.concat([own] * 200, ignore_index=True).assign(position=range(200 * len(own)), piece="W" * 60)
    own.loc[0, "piece"] = "W" * MEGABYTE
    sequences.loc[0, "text"], sequences.loc[0, "length"] = "W" * MEGABYTE, len(own)
    sequences.to_parquet(paths[0])
    pd.concat([own, tokens[tokens["sequence"] != 0]], ignore_index=True).to_parquet(paths[1])


def test_every_view_keeps_hostile_text_as_text_in_light_and_dark(lab, root, watched):
    address, folder = lab
    opened = watched(offline=False, width=1400, height=1500)
    page = open_notebook(opened, address, folder, "hostile", runs=str(root))
    page.wait_for_selector(".wb-token")
    for run in open_run(root / "hostile-1-0000abcd"), next(open_run(path) for path in root.glob("trl-*")):
        page.locator(".widget-dropdown:has-text('run') select").last.select_option(label=run.id)
        page.locator(".wb-bar input[type=range]").first.focus()
        page.keyboard.press("End")  # the last kept step
        page.wait_for_function(IDLE)
        if not run.imported:  # an import has no alternatives
            page.locator(".wb-token").nth(4).focus()
            assert "<a href='javascript" in page.locator(".wb-tops").inner_text()
        for view in VIEWS:
            choose_view(page, view.title)
            assert page.locator(INJECTED).count() == 0 and page.title() != "owned", view.title
            assert page.evaluate(BROAD) == [], view.title
            words = page.locator(".jp-OutputArea:has(.wb-table)").first.inner_text()
            assert "This view failed" not in words, view.title
            if run.imported and view.title in ("Ledger", "What-if", "Quadrants", "Film-strip"):
                assert "Not recorded" in words, view.title
            opened.shot(f"hostile-{run.id[:3]}-{view.title.lower().replace(' ', '-')}")
        choose_view(page, "Text")
    metric = page.locator(".widget-text:has-text('metric') input").first
    metric.fill(f"foreign/{METRIC}")
    metric.press("Enter")
    page.wait_for_function("document.querySelector('.js-plotly-plot')?.textContent.includes('onerror')")
    page.evaluate(DARK)
    page.wait_for_timeout(500)
    opened.shot("hostile-dark")
    assert page.locator(INJECTED).count() == 0 and page.title() != "owned"
    assert [wrong for wrong in opened.wrong if wrong.startswith("error")] == []
