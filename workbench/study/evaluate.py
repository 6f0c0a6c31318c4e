"""Evaluate a run's newest checkpoint or any model on evaluation sets, into files that a stopped evaluation can use."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from workbench.config import TaskConfig
from workbench.metrics.evaluation import evaluation_table
from workbench.policy.model import Policy, load_policy
from workbench.store import open_run
from workbench.store.files import remove, write_atomic, write_json
from workbench.store.layout import file_name
from workbench.store.writer import write_table
from workbench.tasks import get_task
from workbench.training.evaluation import Evaluation
from workbench.training.trainer import resolve_device

_BETWEEN_SETS = re.compile(r",(?![^\[]*\])")
"""A comma, but not one inside the brackets of a set's option."""


def evaluate_subject(
    subject: str,
    out: Path,
    sets: str,
    prompts: int,
    samples: int,
    temperature: float,
    seed: int,
    top_p: float = 1.0,
    log: Callable[[str], None] = print,
) -> pd.DataFrame:
    """Sample `subject` (a run's folder or id, or a model) and return what it measures per set (see `evaluation_table`).

    Every set is one Parquet file under `out`/<subject>-<hash of the settings>/, beside `settings.json`; sets that are
    there already are not sampled again, and of a set that was interrupted only the parts that are missing. Raises
    `ValueError` for an unknown set, settings out of range or a run without a checkpoint, before anything is sampled.
    """
    names = [get_task(name.strip()).name for name in _BETWEEN_SETS.split(sets) if name.strip()]
    _refuse(names, prompts, samples, temperature, top_p)
    label, model, step, task = _resolve(subject)
    settings = {
        "model": model,
        "prompts": prompts,
        "samples": samples,
        "temperature": temperature,
        "top_p": top_p,
        "seed": seed,
    }
    digest = hashlib.sha256(json.dumps([settings, step]).encode()).hexdigest()[:8]
    folder = Path(out) / f"{label}-{digest}"
    write_json(folder / "settings.json", settings | {"step": step})

    @cache
    def policy() -> Policy:
        return load_policy(model, resolve_device("auto"))

    files = [folder / f"{file_name(name)}.parquet" for name in names]
    for name, path in zip(names, files, strict=True):
        evaluation = Evaluation(name, prompts, samples, temperature, seed, step, top_p, task=task)
        _sample_set(evaluation, path, policy, log)
    return evaluation_table(pd.concat([pd.read_parquet(path) for path in files], ignore_index=True))


def _refuse(names: list[str], prompts: int, samples: int, temperature: float, top_p: float) -> None:
    if not names:
        raise ValueError("no evaluation set given; name at least one, as in --sets reduce,countdown")
    if prompts < 1 or samples < 1:
        raise ValueError(f"an evaluation needs at least one prompt and one sample, got {prompts} and {samples}")
    if not temperature > 0 or not 0 < top_p <= 1:
        raise ValueError(f"sampling needs temperature > 0 and 0 < top-p ≤ 1, got {temperature:g} and {top_p:g}")


def _sample_set(evaluation: Evaluation, path: Path, policy: Callable[[], Policy], log: Callable[[str], None]) -> None:
    """Write the samples of one set to `path`. The parts lie beside it until all are there; a stopped evaluation goes on
    with the first part that is missing."""
    if path.exists():
        log(f"{evaluation.name}: sampled already, {path}")
        return
    parts = path.with_suffix(".parts")
    starts = evaluation.starts()
    files = [parts / f"{first:06d}.parquet" for first in starts]
    for number, (first, file) in enumerate(zip(starts, files, strict=True), 1):
        if not file.exists():
            write_table(file, evaluation.part(policy(), first))
            log(f"{evaluation.name}: part {number} of {len(files)}")
    table = pa.concat_tables(pq.read_table(file) for file in files)
    write_atomic(path, lambda partial: pq.write_table(table, partial, compression="zstd"))
    remove(parts)
    log(
        f"{evaluation.name}: {len(table)} samples, {evaluation.samples} per prompt, temperature "
        f"{evaluation.temperature:g}, top-p {evaluation.top_p:g}, {path}"
    )


def _resolve(subject: str) -> tuple[str, str, int, TaskConfig]:
    """(label, model to load, step, how prompts are put to it) of a run or a model."""
    try:
        run = open_run(subject)
    except FileNotFoundError:
        return Path(subject).name, subject, 0, TaskConfig()
    if not run.checkpoints:
        raise ValueError(f"run {run.id} has no checkpoint yet; train it further first")
    step, folder = list(run.checkpoints.items())[-1]
    return run.id, str(folder), step, run.config.task
