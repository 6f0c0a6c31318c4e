"""Execute a notebook with parameters, without a front-end, and leave a report whatever happens.

Layout below the output root: `notebooks/<name>/<key>/notebook.ipynb` and `manifest.json`, `reports/<key>/<name>.html`
and `reports/index.html`. The manifest, not the notebook's metadata, says how the execution stands: papermill marks the
cells of a killed kernel as completed. Its modification time is a heartbeat, so that an execution whose own process was
killed is seen to be lost.
"""

import difflib
import errno
import hashlib
import json
import os
import random
import re
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import papermill
import yaml
from nbclient.exceptions import DeadKernelError
from nbformat.reader import NotJSONError
from papermill.exceptions import PapermillExecutionError

from workbench.presets import PRESETS
from workbench.report import Parameter, export_html, index_page, read_parameters
from workbench.store import OUTPUTS_VARIABLE, outputs_root
from workbench.store.liveness import beating, is_alive, this_process

START_TIMEOUT = 180  # seconds; importing torch on a loaded machine is slow
STARTS = 3  # tries to start a kernel: ports may clash when many start at once; nothing has run yet when that happens
EXECUTION_COLUMNS = ("notebook", "state", "reason", "parameters", "started", "report", "seconds")
PADDING = 2048  # bytes a manifest reserves, so that its end can be told even when the disk is full
TYPES = {"int": int, "float": (int, float), "str": str, "bool": bool, "list": list, "dict": dict}


@dataclass(frozen=True)
class ExecutedNotebook:
    """Where an execution left its notebook and its report; `state` is "done", "failed", "killed" or "interrupted"."""

    notebook: Path
    report: Path
    state: str
    reason: str | None = None


class NotebookFailed(RuntimeError):
    """A notebook did not run to its end; `executed` tells where the partial notebook and report are."""

    def __init__(self, executed: ExecutedNotebook):
        super().__init__(f"{executed.reason} (report: {executed.report})")
        self.executed = executed


def parse_parameters(notebook, assignments: list[str]) -> dict:
    """`["steps=60", "learning_rate=3e-4"]` as typed parameters of `notebook`; raises like check_parameters."""
    declared = read_parameters(notebook)
    parameters = {}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not equals:
            raise ValueError(f"parameter {assignment!r} has no value; write name=value.")
        parameters[name] = _literal(text, declared[name]) if name in declared else text
    return check_parameters(notebook, parameters)


def check_parameters(notebook, parameters: dict) -> dict:
    """Return `parameters` when every name is declared in the notebook's parameters cell with a fitting type; raise
    ValueError naming the parameter and the remedy otherwise, before anything is computed."""
    declared = read_parameters(notebook)
    for name, value in parameters.items():
        if name not in declared:
            near = difflib.get_close_matches(name, declared, n=1, cutoff=0)
            hint = f"did you mean {near[0]!r}?" if near else "it declares no parameters."
            raise ValueError(f"{Path(notebook).name} has no parameter {name!r}; {hint}")
        if not _fits(value, declared[name].type):
            raise ValueError(f"parameter {name!r} is {value!r}; {Path(notebook).name} needs {declared[name].type}.")
        if name == "scale" and value not in PRESETS:
            raise ValueError(f"parameter 'scale' is {value!r}; it is one of {', '.join(PRESETS)}.")
    return dict(parameters)


def read_parameters_file(path) -> dict:
    """Parameters from a YAML or JSON file. Raises ValueError when it holds anything but a mapping."""
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"parameters file '{path}' cannot be read: {str(error).splitlines()[0]}") from None
    if not isinstance(content, dict):
        raise ValueError(f"parameters file '{path}' must hold a mapping, found {type(content).__name__}")
    return content


def execute_notebook(path, parameters: dict, output_root="outputs", standalone: bool = False) -> ExecutedNotebook:
    """Execute the notebook at `path` with `parameters` and write its report (see `export_html` for `standalone`).

    What the notebook prints appears on stdout as it happens. Raises ValueError for wrong parameters before anything
    runs, and NotebookFailed (with the partial notebook and report in place) when a cell fails or the kernel dies.
    """
    path, root = Path(path), Path(output_root).resolve()
    parameters = check_parameters(path, parameters)
    key = execution_key(path, parameters)
    folder = root / "notebooks" / path.stem / key
    folder.mkdir(parents=True, exist_ok=True)
    output, report = folder / "notebook.ipynb", root / "reports" / key / f"{path.stem}.html"
    output.unlink(missing_ok=True)
    manifest = {"notebook": path.name, "parameters": parameters, **this_process(), "started": time.time()}
    _write_manifest(folder, manifest | {"state": "running"})
    state, reason = "interrupted", "stopped on request; executing it again loads or continues its runs"
    try:
        with beating(folder / "manifest.json"):
            state, reason = _run(path, output, parameters, root)
    finally:
        ended = {"state": state, "reason": reason, "ended": time.time(), "report": str(report)}
        _write_manifest(folder, manifest | ended)
        try:
            if output.exists():
                export_html(output, report, state=state, reason=reason, standalone=standalone)
                index_page(root / "reports")
        except Exception as error:
            # On a full disk half a notebook may be all there is; how the execution ended is told above in any case.
            if state == "done":
                told = {"state": "failed", "reason": f"its report could not be written: {error}"}
                _write_manifest(folder, manifest | ended | told)
            if state == "done" or not isinstance(error, (OSError, NotJSONError)):
                raise
    executed = ExecutedNotebook(output, report, state, reason)
    if state != "done":
        raise NotebookFailed(executed)
    return executed


def executions(output_root=None) -> pd.DataFrame:
    """Every execution below `output_root` (by default the outputs folder): notebook, state, reason, parameters,
    started, report, seconds. An execution that says it runs and whose process is gone is lost."""
    root = Path(output_root) if output_root else outputs_root()
    rows = []
    for path in sorted(root.glob("notebooks/*/*/manifest.json")):
        m = json.loads(path.read_text(encoding="utf-8"))
        if m["state"] == "running" and not is_alive(m, path.stat().st_mtime):
            m |= {"state": "lost", "reason": "the process that executed it ended without a word"}
        row = {name: m.get(name) for name in EXECUTION_COLUMNS}
        rows.append(row | {"seconds": m["ended"] - m["started"] if "ended" in m else None})
    return pd.DataFrame(rows, columns=EXECUTION_COLUMNS)


def execution_key(path: Path, parameters: dict) -> str:
    """Readable parameters and a hash of notebook name and parameters, such as `seed=1-steps=60-1f3a9c2e`."""
    canonical = json.dumps([Path(path).stem, parameters], sort_keys=True)
    digest = hashlib.sha256(canonical.encode()).hexdigest()[:8]
    knobs = "-".join(f"{name}={value}" for name, value in sorted(parameters.items())) or "defaults"
    return f"{re.sub(r'[^A-Za-z0-9._=+-]+', '_', knobs)[:48]}-{digest}"


def _run(path: Path, output: Path, parameters: dict, root: Path) -> tuple[str, str | None]:
    """Execute and return (state, reason)."""
    # Without a front-end: figures as JSON for the exporter, no live widgets even when started from JupyterLab.
    surroundings = {"PLOTLY_RENDERER": "plotly_mimetype", "WORKBENCH_LIVE": "0", OUTPUTS_VARIABLE: str(root)}
    try:
        with _environment(surroundings):
            _execute(path, output, parameters)
    except PapermillExecutionError as error:
        return "failed", f"cell {error.cell_index + 1} raised {error.ename}: {error.evalue}"
    except DeadKernelError:
        return "killed", "the kernel died, most likely killed for want of memory; lower the batch or the model size"
    except OSError as error:
        full = error.errno == errno.ENOSPC
        return "failed", "disk full; free some space and execute it again" if full else f"{error}"
    except Exception as error:  # whatever stops papermill itself must end in the manifest too
        return "failed", f"the notebook could not be executed: {error}"
    return "done", None


def _execute(path: Path, output: Path, parameters: dict) -> None:
    """papermill, tried again when the kernel did not even start."""
    for attempt in range(1, STARTS + 1):
        try:
            papermill.execute_notebook(
                str(path),
                str(output),
                parameters,
                kernel_name="python3",
                language="python",
                progress_bar=False,
                stdout_file=sys.stdout,
                start_timeout=START_TIMEOUT,
                store_widget_state=False,
                extra_arguments=["--IPKernelApp.log_level=CRITICAL"],
            )
            return
        except RuntimeError as error:
            unborn = "Kernel died before replying" in str(error) or "Kernel didn't respond" in str(error)
            if not unborn or isinstance(error, DeadKernelError) or attempt == STARTS:
                raise
            time.sleep(random.uniform(0.5, 2.0) * attempt)


@contextmanager
def _environment(variables: dict[str, str]):
    """Set environment variables for the kernel started inside, and put the old values back."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def _write_manifest(folder: Path, manifest: dict) -> None:
    """Written beside and renamed; on a full disk into the space the first manifest reserved."""
    path, partial = folder / "manifest.json", folder / "manifest.partial"
    text = (json.dumps(manifest, indent=1) + "\n").ljust(PADDING)
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        if error.errno != errno.ENOSPC or not path.exists():
            raise
        partial.unlink(missing_ok=True)
        with path.open("r+", encoding="utf-8") as file:
            file.write(text[: path.stat().st_size])


def _literal(text: str, parameter: Parameter):
    """`text` as the declared type reads it; left as text where it does not fit, for check_parameters to refuse."""
    if parameter.type == "str":
        return text
    value = yaml.safe_load(text)
    if parameter.type == "float" and isinstance(value, str):  # YAML reads 1e-6 as text
        try:
            return float(value)
        except ValueError:
            return text
    return value


def _fits(value, declared: str) -> bool:
    """Whether `value` has a declared type of the safe grammar: bool is no int, int is a float, unknown types accept."""
    optional = re.fullmatch(r"Optional\[(.+)\]", declared)
    if optional:
        return value is None or _fits(value, optional[1])
    element = re.fullmatch(r"list\[(.+)\]", declared)
    if element:
        return isinstance(value, list) and all(_fits(item, element[1]) for item in value)
    expected = TYPES.get(declared, object)
    return isinstance(value, expected) and (declared == "bool" or expected is object or not isinstance(value, bool))
