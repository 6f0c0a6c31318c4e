"""Is somebody watching? Live widgets need a front-end with widget support; everything else gets static output."""

import os
import sys


def in_kernel() -> bool:
    """True inside an IPython kernel (JupyterLab, papermill, nbclient), False in scripts and the IPython shell."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return getattr(shell, "kernel", None) is not None


def live_front_end() -> bool:
    """True when a person sits in front of this kernel.

    Jupyter Server names the notebook of each kernel it starts in JPY_SESSION_NAME; papermill and nbclient do not.
    WORKBENCH_LIVE=0 or =1 overrides, for other front-ends and for batch runs started from inside a notebook.
    """
    if override := os.environ.get("WORKBENCH_LIVE"):
        return override == "1" and in_kernel()
    return in_kernel() and "JPY_SESSION_NAME" in os.environ
