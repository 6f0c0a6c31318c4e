"""The report of a study, its index and the shared folder in a browser without a network."""

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from tests.browser.test_report_page import figure_cell
from tests.study.test_studies import finished  # noqa: F401  (a fixture)
from tests.synthetic import HOSTILE
from workbench import plots
from workbench.report import export_html, index_page, share


def claims_cell(claims):
    return new_code_cell("claims", outputs=[new_output("display_data", data=claims._repr_mimebundle_())])


@pytest.fixture(scope="module")
def reports(finished, tmp_path_factory):  # noqa: F811
    """A folder of reports with one of a study in it, plotly.js beside it."""
    root, metrics = tmp_path_factory.mktemp("shared") / "reports", finished.metrics
    scores, claims = finished.scores("entropy", "pass@16"), finished.claims()
    claims.table.loc[0, "sentence"] = HOSTILE
    cells = [
        new_markdown_cell("# A study\n\n**Which clip threshold raises entropy?**\n\nText."),
        figure_cell(plots.arm_curves(metrics)),
        figure_cell(plots.against_published(metrics, finished.published)),
        figure_cell(plots.score_curves(scores, "pass@16")),
        figure_cell(plots.entropy_against(scores, "pass@16", frontier=True)),
        figure_cell(plots.verdicts(claims.table)),
        claims_cell(claims),
    ]
    path = root.parent / "study.ipynb"
    nbformat.write(new_notebook(cells=cells), path)
    export_html(path, root / "key" / "study.html", standalone=False)
    index_page(root)
    return root


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_figure_is_painted_with_the_shared_plotly(watched, reports, scheme):
    opened = watched(scheme=scheme)
    page, report = opened.page, reports / "key" / "study.html"
    page.goto(report.as_uri())
    page.wait_for_selector(".js-plotly-plot .main-svg")
    assert page.locator(".js-plotly-plot:has(.main-svg)").count() == 5
    assert page.locator(".wb-claims tbody tr").count() == 5 and page.locator(".wb-claims img").count() == 0
    assert HOSTILE in page.locator(".wb-claims").inner_text()
    opened.shot(f"study-{scheme}", full_page=True)
    assert opened.wrong == [] and report.stat().st_size < 1_000_000


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_index_of_a_shared_folder_leads_to_the_report(watched, reports, tmp_path, scheme):
    index = share(tmp_path / "public", reports)
    assert sorted(path.suffix for path in (tmp_path / "public").rglob("*") if path.is_file() and path.suffix) == [
        ".html", ".html", ".js",
    ]  # fmt: skip
    opened = watched(scheme=scheme)
    page = opened.page
    page.goto(index.as_uri())
    assert page.locator("svg polyline").count() > 0 and "reproduced" in page.locator("tbody").inner_text()
    assert "Which clip threshold raises entropy?" in page.locator("tbody").inner_text()
    opened.shot(f"index-{scheme}", full_page=True)
    page.get_by_role("link", name="A study").click()
    page.wait_for_selector(".js-plotly-plot .main-svg")
    assert opened.wrong == []
    with pytest.raises(ValueError, match="lies among the reports"):
        share(reports / "inside", reports)
