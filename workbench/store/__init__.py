"""The run folder: its layout, an atomic writer, a reader that gives data frames, and SQL across runs."""

from workbench.store.curves import curve_table, first_row, last_row
from workbench.store.importers import import_run
from workbench.store.layout import OUTPUTS_VARIABLE, Layout, outputs_root, runs_root
from workbench.store.query import sql
from workbench.store.reader import Run, StoredRollouts, list_runs, open_run, runs
from workbench.store.writer import RunLocked, RunWriter, SilentWriter

__all__ = [
    "OUTPUTS_VARIABLE",
    "Layout",
    "Run",
    "RunLocked",
    "RunWriter",
    "SilentWriter",
    "StoredRollouts",
    "curve_table",
    "first_row",
    "import_run",
    "last_row",
    "list_runs",
    "open_run",
    "outputs_root",
    "runs",
    "runs_root",
    "sql",
]
