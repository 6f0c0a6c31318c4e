"""Evaluate a run's newest checkpoint or any model on evaluation sets, into files that a stopped evaluation can use."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from workbench.metrics.performance import pass_at_k_table
from workbench.policy.model import load_policy
from workbench.store import open_run
from workbench.store.files import write_json
from workbench.store.writer import write_table
from workbench.tasks import get_task
from workbench.training.evaluation import evaluate
from workbench.training.trainer import resolve_device


def evaluate_subject(
    subject: str,
    out: Path,
    sets: str,
    prompts: int,
    samples: int,
    temperature: float,
    seed: int,
    log: Callable[[str], None] = print,
) -> pd.DataFrame:
    """Sample `subject` (a run's folder or id, or a model) and return pass@k per set (see `pass_at_k_table`).

    Every set is one Parquet file under `out`/<subject>-<hash of the settings>/; sets that are there already are not
    sampled again. Raises `ValueError` for an unknown set or a run without a checkpoint, before anything is sampled.
    """
    names = [get_task(name.strip()).name for name in sets.split(",") if name.strip()]
    label, model, step = _resolve(subject)
    settings = {
        "model": model,
        "prompts": prompts,
        "samples": samples,
        "temperature": temperature,
        "top_p": 1.0,
        "seed": seed,
    }
    digest = hashlib.sha256(json.dumps([settings, step]).encode()).hexdigest()[:8]
    folder = Path(out) / f"{label}-{digest}"
    write_json(folder / "settings.json", settings | {"step": step})
    policy = None
    for name in names:
        path = folder / f"{name}.parquet"
        if path.exists():
            log(f"{name}: sampled already, {path}")
            continue
        policy = policy or load_policy(model, resolve_device("auto"))
        write_table(path, evaluate(policy, name, prompts, samples, temperature, seed, step))
        log(f"{name}: {prompts} prompts × {samples} samples, {path}")
    return pass_at_k_table(pd.concat([pd.read_parquet(folder / f"{name}.parquet") for name in names]))


def _resolve(subject: str) -> tuple[str, str, int]:
    """(label, model to load, step) of a run or a model."""
    try:
        run = open_run(subject)
    except FileNotFoundError:
        return Path(subject).name, subject, 0
    if not run.checkpoints:
        raise ValueError(f"run {run.id} has no checkpoint yet; train it further first")
    step, folder = list(run.checkpoints.items())[-1]
    return run.id, str(folder), step
