"""Runs of other tools as run folders: TRL, verl, W&B offline runs and TensorBoard event files.

Every figure that does not need what the other tool did not record works on an imported run. What was not recorded stays
absent: it is never filled in, least of all with zero.
"""

from workbench.store.importers.load import KINDS, import_run

__all__ = ["KINDS", "import_run"]
