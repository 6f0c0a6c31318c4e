"""A real JupyterLab for tests and benchmarks: served on a free port of this machine, and driven from a page."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import nbformat

REPOSITORY = Path(__file__).parents[2]
CONFIG = """from jupyterlab.galata import configure_jupyter_server
configure_jupyter_server(c)
"""
QUIET = '{"@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": false}}'
IDLE = "window.jupyterapp.shell.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'"
DARK = "window.jupyterapp.commands.execute('apputils:change-theme', {theme: 'JupyterLab Dark'})"


@contextmanager
def jupyterlab(folder: Path):
    """The address of a JupyterLab on `folder`, without a password, as long as the context lasts."""
    (folder / "config.py").write_text(CONFIG)
    (folder / "settings" / "labconfig").mkdir(parents=True)
    (folder / "settings" / "labconfig" / "default_setting_overrides.json").write_text(QUIET)  # no toast over the page
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = [f"--config={folder / 'config.py'}", "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}"]
    options += [f"--ServerApp.root_dir={folder}", "--ServerApp.port_retries=0"]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "JUPYTER_CONFIG_DIR": str(folder / "settings")}
    with (folder / "server.log").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", *options], stdout=log, stderr=log, cwd=folder, env=environment
        )
    address = f"http://127.0.0.1:{port}"
    try:
        _wait_for(address, server)
        yield address
    finally:
        server.terminate()
        server.wait(30)


def _wait_for(address, server):
    for _ in range(1000):
        if server.poll() is not None:
            raise RuntimeError("JupyterLab ended before it answered; server.log in its folder says why")
        try:
            urllib.request.urlopen(f"{address}/api", timeout=1).close()
            return
        except OSError:
            time.sleep(0.25)
    raise RuntimeError("JupyterLab did not answer within minutes")


def with_parameters(notebook: Path, **parameters) -> nbformat.NotebookNode:
    """The notebook with these values at the end of its parameters cell."""
    read = nbformat.read(notebook, as_version=4)
    (cell,) = [c for c in read.cells if "parameters" in c.metadata.get("tags", ())]
    cell.source = "\n".join([cell.source, *(f"{key} = {value!r}" for key, value in parameters.items())])
    return read


def open_in_lab(page, address, name) -> None:
    """Open `name`.ipynb of the server's folder in `page` and wait until its kernel is there; without a kernel Lab would
    ask for one."""
    page.goto(f"{address}/lab/workspaces/{name}/tree/{name}.ipynb")
    page.wait_for_function("window.jupyterapp && window.jupyterapp.restored")
    page.wait_for_selector(".jp-Notebook .jp-CodeCell")
    page.wait_for_function(IDLE)


def run_all(page) -> None:
    """Run all cells; it does not wait, for Lab's promise is the whole run."""
    page.evaluate("void window.jupyterapp.commands.execute('notebook:run-all-cells')")


def settled(page) -> None:
    """Wait until the kernel has answered what was just done."""
    page.wait_for_timeout(400)
    page.wait_for_function(IDLE)
