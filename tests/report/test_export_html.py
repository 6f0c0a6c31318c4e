"""Reports as files: nothing fetched, everything escaped, title and parameters first, found by the index."""

import re
import time

import nbformat
import pytest
from bs4 import BeautifulSoup
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from tests.synthetic import HOSTILE
from workbench import plots
from workbench.report import export_html, index_page, read_card, read_parameters

PARAMETERS = 'scale: str = "cpu"  # preset\nsteps: int = 0  # rollout steps\nrates: list[float] = [0.1]  # rates'


def figure_output():
    fig = plots.published_entropy(plots.published_curve())
    fig.data[0].name = HOSTILE
    return new_output("display_data", data={"application/vnd.plotly.v1+json": fig.to_plotly_json()})


def write_notebook(path, given=None):
    cells = [
        new_markdown_cell(f"# A title {HOSTILE}\n\nThe question."),
        new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]}),
        new_code_cell(f"print({HOSTILE!r})", outputs=[new_output("stream", name="stdout", text=f"{HOSTILE}\n" * 20)]),
        new_code_cell("1", outputs=[new_output("execute_result", data={"text/plain": HOSTILE}, execution_count=1)]),
        new_code_cell("2", outputs=[new_output("display_data", data={"text/markdown": HOSTILE})]),
        new_code_cell("3", outputs=[new_output("error", ename="E", evalue="e", traceback=[HOSTILE])]),
        new_code_cell("figure", outputs=[figure_output()]),
        new_code_cell("table", outputs=[new_output("execute_result", data={"text/html": "<table id='ours'></table>"})]),
    ]
    notebook = new_notebook(cells=cells, metadata={"papermill": {"parameters": given or {}}})
    nbformat.write(notebook, path)
    return path


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    root = tmp_path_factory.mktemp("reports")
    notebook = write_notebook(root / "demo.ipynb", {"steps": 7, "scale": HOSTILE})
    return export_html(notebook, root / "key" / "demo.html", state="failed", reason=HOSTILE)


def without_plotly(html):
    return re.sub(r"<script>/\*\*\n\* plotly\.js.*?</script>", "", html, flags=re.DOTALL)


def test_no_model_text_becomes_markup(report):
    page = without_plotly(report.read_text())
    assert not BeautifulSoup(page, "html.parser").select("img")
    assert page.count("onerror") >= 6 and "&lt;img src=x onerror" in page


def test_one_self_contained_file_that_asks_the_network_for_nothing(report):
    html = report.read_text()
    page = without_plotly(html)
    assert len(html) - len(page) > 4_000_000 and "* plotly.js" not in page  # inlined exactly once
    assert not re.findall(r"""(?:src|href|url\(|import)\s*[=(]?\s*["']?(?:https?:)?//""", page)
    assert "require" not in page and "mathjax" not in page.lower()
    assert len(html) < 5_500_000


def test_title_and_parameters_stand_before_the_body(report):
    page = report.read_text()
    order = [page.index("<h1>"), page.index("<code>steps</code>"), page.index("The question.")]
    assert order == sorted(order) and page.count("<h1") == 1
    assert re.search(r"<td>7 <em>\(set\)</em></td><td>rollout steps</td>", page)
    assert re.search(r"<td>\[0\.1\]</td><td>rates</td>", page)


def test_inputs_are_collapsed_but_there(report):
    page = report.read_text()
    assert page.count('<details class="input">') == 7
    assert "20 lines of text output" in page


def test_html_made_by_our_code_passes(report):
    assert BeautifulSoup(report.read_text(), "html.parser").select("table#ours")


def test_figures_have_caption_label_and_data_table(report):
    page = report.read_text()
    (figure,) = BeautifulSoup(page, "html.parser").select("figure.wb-figure")
    sentence = figure.find("figcaption").text
    assert sentence.startswith("Published entropy in nats per token.")
    assert figure.select_one("[role=img]")["aria-label"] == sentence
    assert "first 200 of 402 rows" in figure.text and "0.3554" in [cell.text for cell in figure.select("td")]


def test_pages_without_figures_carry_no_plotly(tmp_path):
    nbformat.write(new_notebook(cells=[new_markdown_cell("# Plain")]), tmp_path / "plain.ipynb")
    assert export_html(tmp_path / "plain.ipynb", tmp_path / "plain.html").stat().st_size < 20_000


def test_only_a_report_among_others_leads_to_their_index(report, tmp_path):
    nbformat.write(new_notebook(cells=[new_markdown_cell("# Plain")]), tmp_path / "plain.ipynb")
    among = export_html(tmp_path / "plain.ipynb", tmp_path / "key" / "plain.html", standalone=False)
    assert "../index.html" in among.read_text() and "../index.html" not in report.read_text()


def test_index_links_every_report_newest_first_and_escapes_what_they_say(report):
    root = report.parent.parent
    nbformat.write(new_notebook(cells=[new_markdown_cell("# Later")]), root / "later.ipynb")
    time.sleep(max(0, 1.01 - (time.time() - report.stat().st_mtime)))  # dates have seconds
    export_html(root / "later.ipynb", root / "other" / "later.html")
    (root / "foreign.html").write_text("<h1>not ours</h1>")
    page = index_page(root).read_text()
    assert page.index("other/later.html") < page.index("key/demo.html")
    assert "2 reports" in page and "foreign" not in page and "<img" not in page
    assert "failed: &lt;/script&gt;" in page and "steps = 7" in page


def test_a_report_describes_itself(report):
    card = read_card(report)
    assert card["state"] == "failed" and card["parameters"] == {"steps": 7, "scale": HOSTILE}


def test_parameters_are_read_without_running_anything(tmp_path):
    found = read_parameters(write_notebook(tmp_path / "demo.ipynb"))
    assert [(p.name, p.type, p.default, p.help) for p in found.values()] == [
        ("scale", "str", "cpu", "preset"),
        ("steps", "int", 0, "rollout steps"),
        ("rates", "list[float]", [0.1], "rates"),
    ]
    cell = new_code_cell("n: int = open('x')  # n", metadata={"tags": ["parameters"]})
    nbformat.write(new_notebook(cells=[cell]), tmp_path / "bad.ipynb")
    with pytest.raises(ValueError, match=r"'n' .* plain literal"):
        read_parameters(tmp_path / "bad.ipynb")
