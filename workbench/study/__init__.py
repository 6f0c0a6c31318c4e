"""Carrying out studies: launching training runs from notebooks and scripts, executing notebooks with parameters.

`launch` trains a config in the right process; `notebooks` runs a notebook through papermill and exports its report.
"""

from workbench.study.launch import stop_with_parent, train
from workbench.study.notebooks import (
    ExecutedNotebook,
    NotebookFailed,
    check_parameters,
    execute_notebook,
    parse_parameters,
)

__all__ = [
    "ExecutedNotebook",
    "NotebookFailed",
    "check_parameters",
    "execute_notebook",
    "parse_parameters",
    "stop_with_parent",
    "train",
]
