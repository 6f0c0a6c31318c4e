"""Notebooks hold prose, a config, calls and figures: no logic, and a parameters cell that papermill reads in full."""

import ast
import re
from pathlib import Path

import nbformat
import pytest

from workbench.report import read_parameters

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))
# name, annotation, literal default, two spaces, help; neither = nor # twice, for papermill would misread the line.
LINE = re.compile(r'^\w+: ("Optional\[\w+\]"|list\[\w+\]|int|float|str|bool|list|dict) = [^#=]+  # [^#=]+$')

pytestmark = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def code(path):
    return [cell for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]


def test_is_short(path):
    cells = nbformat.read(path, 4).cells
    lines = [line for cell in code(path) for line in cell.source.splitlines() if line.strip()]
    assert len(cells) <= 25 and len(lines) <= 150
    assert all(len(cell.source.splitlines()) <= 15 for cell in code(path))


def test_defines_at_most_small_functions_and_imports_the_workbench_alone(path):
    tree = ast.parse("\n".join(cell.source for cell in code(path)))
    for node in ast.walk(tree):
        assert not isinstance(node, (ast.ClassDef, ast.ImportFrom))
        if isinstance(node, ast.Import):
            assert [(name.name, name.asname) for name in node.names] == [("workbench", "wb")]
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno <= 10


def test_has_one_parameters_cell_in_the_safe_grammar(path):
    (cell,) = [cell for cell in code(path) if "parameters" in cell.metadata.get("tags", [])]
    assert all(LINE.match(line) for line in cell.source.splitlines())
    parameters = read_parameters(path)
    assert list(parameters) == re.findall(r"^\w+", cell.source, re.MULTILINE)
    assert all(p.help and p.type != "None" for p in parameters.values())


def test_is_committed_clean(path):
    notebook = nbformat.read(path, 4)
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert all(not cell.outputs and cell.execution_count is None for cell in code(path))
    assert notebook.metadata.kernelspec.name == "python3" and set(notebook.metadata) == {"kernelspec", "language_info"}
    assert notebook.cells[0].source.startswith("# ") and len({cell.id for cell in notebook.cells}) == len(
        notebook.cells
    )
