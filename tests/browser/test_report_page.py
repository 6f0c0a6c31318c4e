"""An exported report in a browser without a network: painted figures, and from a point of the curve to its tokens."""

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from tests.browser.conftest import click_plot
from tests.synthetic import HOSTILE, write_run
from workbench import plots
from workbench.metrics.performance import pass_at_k_table
from workbench.report import export_html
from workbench.store import open_run
from workbench.widgets import token_view

SIZE_BUDGET = 6_000_000  # of which plotly.js takes 4.8


def figure_cell(fig):
    output = new_output("display_data", data={"application/vnd.plotly.v1+json": fig.to_plotly_json()})
    return new_code_cell("figure", outputs=[output])


def view_cell(run):
    return new_code_cell(
        "view", outputs=[new_output("execute_result", data={"text/html": token_view(run)._repr_html_()})]
    )


def build_report(folder, run):
    """The page of a run, as the quickstart notebook makes it."""
    metrics = run.metrics
    cells = [
        new_markdown_cell("# A report"),
        figure_cell(plots.training_curves(metrics, reference=plots.published_curve(), run=run.id)),
        figure_cell(plots.entropy_by_sign(metrics, run=run.id)),
        figure_cell(plots.pass_at_k(pass_at_k_table(run.evals))),
        view_cell(run),
    ]
    nbformat.write(new_notebook(cells=cells), folder / "page.ipynb")
    return export_html(folder / "page.ipynb", folder / "page.html")


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    return build_report(folder, open_run(write_run(folder / "synthetic-0000abcd")))


def open_report(watched, report, **options):
    opened = watched(**options)
    opened.page.goto(report.as_uri())
    opened.page.wait_for_selector(".js-plotly-plot .main-svg")
    opened.page.wait_for_selector(".wb-token")
    return opened


def shown_step(page):
    return page.locator(".wb-step").inner_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everything_is_painted_offline(watched, report, scheme):
    opened = open_report(watched, report, scheme=scheme)
    page = opened.page
    assert page.locator(".js-plotly-plot").count() == 3
    assert page.locator(".js-plotly-plot:has(.main-svg .scatterlayer path.js-line)").count() == 3
    assert page.locator(".wb-rollout").count() == 32
    text = page.locator(".js-plotly-plot .xtitle").first
    assert text.text_content() == "rollout step"
    page_colour = page.evaluate("getComputedStyle(document.body).color")
    assert text.evaluate("node => getComputedStyle(node).fill") == page_colour
    opened.shot(f"report-{scheme}", full_page=True)
    assert opened.wrong == []
    assert report.stat().st_size < SIZE_BUDGET


def test_a_click_on_the_curve_selects_that_steps_tokens(watched, report):
    opened = open_report(watched, report)
    page, curves = opened.page, opened.page.locator(".js-plotly-plot").first
    assert shown_step(page).startswith("step 8 ")
    click_plot(page, curves, (20 - 1) / (40 - 1))
    page.wait_for_function("document.querySelector('.wb-note').textContent")
    assert shown_step(page).startswith("step 16 ") or shown_step(page).startswith("step 24 ")
    assert page.locator(".wb-note").inner_text().startswith("Step 20 was clicked; the nearest kept step is")
    click_plot(page, curves, 0.999)
    page.wait_for_function("document.querySelector('.wb-step').textContent.startsWith('step 40 ')")
    opened.shot("report-hover")
    assert page.locator(".wb-note").inner_text() == "" and opened.wrong == []
    page.wait_for_timeout(600)  # the page scrolls to the tokens
    assert page.locator(".wb-view").evaluate("node => node.getBoundingClientRect().top < innerHeight - 100")


def test_a_click_on_pass_at_k_selects_nothing(watched, report):
    opened = open_report(watched, report)
    click_plot(opened.page, opened.page.locator(".js-plotly-plot").nth(2), 0.5, height=0.5)
    opened.page.wait_for_timeout(200)
    assert shown_step(opened.page).startswith("step 8 ")


def test_the_token_view_works_by_keyboard(watched, report):
    page = open_report(watched, report).page
    page.locator(".wb-bar button").nth(1).focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert shown_step(page).startswith("step 24 ")
    page.locator(".wb-token").first.focus()
    page.keyboard.press("ArrowRight")
    assert "position 1 ·" in page.locator(".wb-detail").inner_text()
    page.keyboard.press("ArrowDown")
    assert page.evaluate("document.activeElement.closest('.wb-text').ariaLabel") in (
        "response 2, wrong",
        "response 2, correct",
    )
    assert shown_step(page).startswith("step 24 ")


def test_hovering_tells_all_numbers_and_colours_keep_contrast(watched, report, tmp_path):
    opened = open_report(watched, report)
    page = opened.page
    for mode in ("log-prob", "advantage", "entropy"):
        page.get_by_label(mode, exact=True).check()
        page.locator(".wb-token").nth(5).hover()
        detail = page.locator(".wb-detail").inner_text()
        assert (
            "entropy" in detail and "nats" in detail and "advantage" in detail and "log-prob before the step" in detail
        )
        assert "likeliest here: " in detail and " ✓ drawn" in detail and page.locator(".wb-top").count() == 2
        opened.shot(f"tokens-{mode}")
        contrasts = page.evaluate(CONTRASTS)
        assert len(contrasts) == 672 and min(contrasts) >= 4.5
    assert opened.wrong == []


CONTRASTS = """() => [...document.querySelectorAll('.wb-token')].map(node => {
  const light = colour => colour.match(/\\d+/g).slice(0, 3).map(Number)
    .map(c => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const style = getComputedStyle(node), a = light(style.color), b = light(style.backgroundColor);
  return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
})"""


def test_the_sign_of_the_advantage_is_visible_without_colour(watched, report):
    page = open_report(watched, report).page
    page.get_by_label("advantage", exact=True).check()
    positive = page.locator(".wb-rollout:has-text('A +') .wb-token")
    negative = page.locator(".wb-rollout:has-text('A −') .wb-token")
    assert positive.first.evaluate("n => getComputedStyle(n).textDecorationStyle") == "solid"
    assert negative.first.evaluate("n => getComputedStyle(n).textDecorationStyle") == "dashed"


def test_selected_text_and_raw_text_are_the_plain_rollout(watched, report):
    page = open_report(watched, report).page
    first = page.locator(".wb-text").first
    selected = first.evaluate("node => { getSelection().selectAllChildren(node); return getSelection().toString(); }")
    page.get_by_label("raw text").check()
    raw = page.locator("pre.wb-text").first.text_content()
    assert selected == raw and page.locator(".wb-token").count() == 0


def test_hostile_model_text_stays_text(watched, tmp_path):
    run = open_run(write_run(tmp_path / "hostile-0000abcd", steps=8, hostile=True))
    opened = open_report(watched, build_report(tmp_path, run))
    page = opened.page
    assert page.locator(".wb-view img, .wb-view script").count() == 0
    assert page.locator(".wb-token").first.text_content() == HOSTILE
    assert page.locator(".wb-group h4").first.text_content().endswith(HOSTILE)
    page.locator(".wb-token").first.hover()
    assert HOSTILE in page.locator(".wb-detail").inner_text()
    page.get_by_label("raw text").check()
    assert page.locator("pre.wb-text").first.text_content().startswith(HOSTILE)
    assert page.title() == "A report" and opened.wrong == []
