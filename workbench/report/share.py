"""All reports as one folder that any static server can host."""

from __future__ import annotations

import shutil
from pathlib import Path

from workbench.report.index import index_page
from workbench.store.files import write_text
from workbench.store.layout import outputs_root


def share(target, reports_root=None) -> Path:
    """Copy the reports under `reports_root` (by default those of the outputs folder) with the plotly.js they share into
    the folder `target`, write its index and return that. Reports copied there before stay.

    Raises `FileNotFoundError` when there are no reports, `ValueError` when `target` lies among them.
    """
    source = Path(reports_root) if reports_root else outputs_root() / "reports"
    target = Path(target)
    if not any(source.glob("*/*.html")):
        raise FileNotFoundError(f"there are no reports in {source}; `python -m workbench notebook` makes them")
    if source.resolve() in (target.resolve(), *target.resolve().parents):
        raise ValueError(f"'{target}' lies among the reports themselves; choose a folder outside of {source}")
    wanted = [*source.glob("*/*.html"), *source.glob("_static/*.js")]
    for path in wanted:
        copy = target / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, copy)
    write_text(target / ".nojekyll", "")  # GitHub Pages otherwise leaves out folders that begin with an underscore
    return index_page(target)
