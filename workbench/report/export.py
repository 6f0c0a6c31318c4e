"""One notebook in, one self-contained HTML report out: opens offline, asks the network for nothing."""

import json
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from pathlib import Path

import nbformat
import plotly
from nbconvert import HTMLExporter
from nbconvert.preprocessors import CoalesceStreamsPreprocessor
from traitlets.config import Config

from workbench.report.figures import PaintedFigures, card_entries
from workbench.report.parameters import executed_values, read_parameters
from workbench.store.files import write_shared

ASSETS = files("workbench.report")
CARD_ID = "workbench-report"  # the JSON block by which the index page knows a report
MAX_VISIBLE_LINES = 12  # longer text output starts collapsed


def export_html(
    notebook_path, html_path, state: str = "done", reason: str | None = None, standalone: bool = True
) -> Path:
    """Write the report of an executed notebook and return its path.

    Title and parameters come first, inputs are collapsed, plotly figures are painted by one plotly.js: inside the file
    where it is `standalone`, else shared by all reports, in `_static/` of the folder above the report's. `state`
    ("done", "failed", "killed") and `reason` are shown at the top and on the index page. Everything that is not HTML
    made by workbench code is escaped. The file appears under its name only when complete.
    """
    notebook_path, html_path = Path(notebook_path), Path(html_path)
    notebook = nbformat.read(notebook_path, as_version=4)
    rows = parameter_rows(notebook_path, notebook)
    card = {
        "title": take_title(notebook, fallback=html_path.stem),
        "parameters": {row["name"]: row["value"] for row in rows if row["changed"]},
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC"),
        "state": state,
        "reason": reason,
        **card_entries(notebook),
    }
    resources = {
        "card": card,
        "card_id": CARD_ID,
        "card_json": json.dumps(card).replace("<", "\\u003c"),
        "rows": rows,
        "css": (ASSETS / "report.css").read_text(),
        "figures_js": (ASSETS / "figures.js").read_text(),
        "plotly_js": plotly_js() if standalone else "",
        "plotly_src": "" if standalone else shared_plotly(html_path.parent.parent),
        "max_lines": MAX_VISIBLE_LINES,
    }
    html, _ = _exporter().from_notebook_node(notebook, resources=resources)
    html_path.parent.mkdir(parents=True, exist_ok=True)
    partial = html_path.with_suffix(".partial")
    partial.write_text(html, encoding="utf-8")
    partial.replace(html_path)
    return html_path


def take_title(notebook: nbformat.NotebookNode, fallback: str) -> str:
    """Remove the first level-1 heading from `notebook` and return its text; the page shows it above the parameters."""
    for cell in notebook.cells:
        lines = cell.source.splitlines() if cell.cell_type == "markdown" else []
        for index, line in enumerate(lines):
            if line.startswith("# "):
                cell.source = "\n".join(lines[:index] + lines[index + 1 :])
                return line[2:].strip()
    return fallback


def parameter_rows(notebook_path, notebook) -> list[dict]:
    """Name, value, help and whether the value differs from the default, for each declared parameter."""
    given = executed_values(notebook)
    rows = []
    for parameter in read_parameters(notebook_path).values():
        value = given.get(parameter.name, parameter.default)
        changed = parameter.name in given and value != parameter.default
        rows.append({"name": parameter.name, "value": value, "help": parameter.help, "changed": changed})
    return rows


@cache
def plotly_js() -> str:
    """plotly.js as shipped with the installed plotly; 4.8 MB, inlined once per report."""
    return (files(plotly) / "package_data" / "plotly.min.js").read_text(encoding="utf-8")


def shared_plotly(root: Path) -> str:
    """Put plotly.js into `root`/_static unless it is there, and return its address from a report one folder down."""
    target = root / "_static" / f"plotly-{plotly.__version__}.min.js"
    if not target.exists():
        write_shared(target, plotly_js())
    return f"../_static/{target.name}"


def _exporter() -> HTMLExporter:
    config = Config()
    config.HTMLExporter.preprocessors = [CoalesceStreamsPreprocessor, PaintedFigures]
    return HTMLExporter(config=config, template_name="workbench", extra_template_basedirs=[str(ASSETS / "templates")])
