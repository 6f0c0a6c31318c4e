"""The parameters of a notebook, read from its tagged cell by papermill's own grammar, without running anything."""

import ast
from dataclasses import dataclass

import nbformat
from papermill.translators import PythonTranslator


@dataclass(frozen=True)
class Parameter:
    """One line of a parameters cell; `type` is the annotation as written, `default` the parsed literal."""

    name: str
    type: str
    default: object
    help: str


def read_parameters(notebook_path) -> dict[str, Parameter]:
    """Declared parameters by name, in order. Raises ValueError for a default that is no plain literal."""
    notebook = nbformat.read(notebook_path, as_version=4)
    tagged = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    parameters = {}
    for line in PythonTranslator.inspect(tagged[0]) if tagged else ():
        try:
            default = ast.literal_eval(line.default)
        except (ValueError, SyntaxError):
            raise ValueError(
                f"parameter {line.name!r} in {notebook_path} has the default {line.default!r}; write a plain literal."
            ) from None
        parameters[line.name] = Parameter(line.name, line.inferred_type_name.strip("\"'"), default, line.help)
    return parameters


def executed_values(notebook: nbformat.NotebookNode) -> dict:
    """The values papermill injected, {} for a notebook it did not run."""
    return dict(notebook.metadata.get("papermill", {}).get("parameters", {}))
