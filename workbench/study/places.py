"""Where outputs go when nobody says so."""

import os
from pathlib import Path

OUTPUTS_VARIABLE = "WORKBENCH_OUTPUTS"


def outputs_root() -> Path:
    """$WORKBENCH_OUTPUTS, else `outputs/` of the project around the working directory (JupyterLab starts kernels in the
    notebook's folder, papermill in the caller's; both must find the same runs), else `outputs/` right here."""
    if chosen := os.environ.get(OUTPUTS_VARIABLE):
        return Path(chosen).resolve()
    here = Path.cwd()
    project = next((folder for folder in (here, *here.parents) if (folder / "pyproject.toml").exists()), here)
    return project / "outputs"
