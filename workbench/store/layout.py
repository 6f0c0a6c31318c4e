"""The run folder: what lies where. Writer and reader both ask here.

config.yaml        the resolved config            provenance.json  versions, hardware, git state, seed
status.json        running / finished / …         metrics.jsonl    one line per step; byte-identical on a re-run
timings.jsonl      seconds per step and part      rollouts/        000040.sequences.parquet, 000040.tokens.parquet
evals/             000000.reduce.parquet          checkpoints/     000040/: safetensors, optimiser, state.json
non_finite/        000041.sequences.parquet, …: the batch in which a step that failed met a number that is not finite
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

OUTPUTS_VARIABLE = "WORKBENCH_OUTPUTS"
IMPORTED = "imported.json"
"""In the folder of a run of another tool: which tool, from where, and what to mind. Its config.yaml is that tool's."""


def outputs_root() -> Path:
    """$WORKBENCH_OUTPUTS, else `outputs/` of the project around the working directory (JupyterLab starts kernels in the
    notebook's folder, papermill in the caller's; both must find the same runs), else `outputs/` right here."""
    if chosen := os.environ.get(OUTPUTS_VARIABLE):
        return Path(chosen).resolve()
    here = Path.cwd()
    project = next((folder for folder in (here, *here.parents) if (folder / "pyproject.toml").exists()), here)
    return project / "outputs"


def runs_root(root: str | Path | None = None) -> Path:
    """`root` if given, else `runs/` of the outputs root."""
    return Path(root) if root else outputs_root() / "runs"


@dataclass(frozen=True)
class Layout:
    """Paths of one run."""

    root: Path

    @property
    def config(self) -> Path:
        return self.root / "config.yaml"

    @property
    def provenance(self) -> Path:
        return self.root / "provenance.json"

    @property
    def status(self) -> Path:
        return self.root / "status.json"

    @property
    def metrics(self) -> Path:
        return self.root / "metrics.jsonl"

    @property
    def timings(self) -> Path:
        return self.root / "timings.jsonl"

    @property
    def lock(self) -> Path:
        return self.root / ".lock"

    @property
    def rollouts(self) -> Path:
        return self.root / "rollouts"

    @property
    def evals(self) -> Path:
        return self.root / "evals"

    @property
    def checkpoints(self) -> Path:
        return self.root / "checkpoints"

    @property
    def non_finite(self) -> Path:
        return self.root / "non_finite"

    def rollout(self, step: int, table: str) -> Path:
        return self.tables(self.rollouts, step, table)

    def tables(self, folder: Path, step: int, table: str) -> Path:
        return folder / f"{step:06d}.{table}.parquet"

    def evaluation(self, step: int, name: str) -> Path:
        return self.evals / f"{step:06d}.{file_name(name)}.parquet"

    def checkpoint(self, step: int) -> Path:
        return self.checkpoints / f"{step:06d}"


def file_name(name: str) -> str:
    """A set's name as part of a file name: what not every file system takes becomes `-`, and a digest of the name
    keeps such names apart."""
    plain = re.sub(r"[^A-Za-z0-9_.-]+", "-", name)
    return name if plain == name else f"{plain[:80]}-{blake2b(name.encode(), digest_size=4).hexdigest()}"


def numbered(folder: Path, suffix: str = "") -> dict[int, list[Path]]:
    """Complete entries of `folder` by step, in order; names are `<step, 6 digits or more><suffix>…`."""
    found: dict[int, list[Path]] = {}
    pattern = re.compile(r"(\d{6,})(?:\..*)?")
    for path in sorted(folder.glob("*")) if folder.is_dir() else ():
        match = pattern.fullmatch(path.name)
        if match and path.name.endswith(suffix) and not path.name.endswith(".partial"):
            found.setdefault(int(match[1]), []).append(path)
    return dict(sorted(found.items()))
