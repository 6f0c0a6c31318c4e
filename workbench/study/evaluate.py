"""Evaluate a run's newest checkpoint or any model on evaluation sets, into files that a stopped evaluation can use."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from workbench.config import TaskConfig, make_section
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


@dataclass(frozen=True)
class Subject:
    """A policy to evaluate: what it is called, the model to load, how prompts are put to it, the step it is of."""

    label: str
    model: str
    task: TaskConfig
    is_run: bool = False
    step: int = 0
    precision: str = "float32"
    max_new_tokens: int = 0

    def asking(self, name: str) -> TaskConfig:
        """How the prompts of set `name` are put to it: a model has no family of its own, its settings are for all."""
        return self.task if self.is_run else self.task.model_copy(update={"name": name})

    def described(self, settings: dict[str, object]) -> dict[str, object]:
        """All that the samples depend on, the sets aside."""
        asked = self.task.model_dump(include={"chat_template", "system_prompt", "prompt_template"})
        return {"model": self.model, "precision": self.precision, **settings, **asked}


def evaluate_subject(
    subject: str,
    out: Path,
    sets: str,
    prompts: int,
    samples: int,
    temperature: float,
    seed: int,
    top_p: float = 1.0,
    max_new_tokens: int = 0,
    chat_template: bool = False,
    system_prompt: str = "",
    log: Callable[[str], None] = print,
) -> pd.DataFrame:
    """Sample `subject` (a run's folder or id, or a model) and return what it measures per set (see `evaluation_table`).

    Every set is one Parquet file under `out`/<subject>-<hash of the settings>/, beside `settings.json`; sets that are
    there already are not sampled again, and of a set that was interrupted only the parts that are missing. A run brings
    its templates, `chat_template` and `system_prompt` are for a model. Raises `ValueError`, before anything is sampled,
    for settings out of range, a run without a checkpoint, and a set that is unknown, cannot be had, or cannot be judged
    here.
    """
    names = [get_task(name.strip()).name for name in _BETWEEN_SETS.split(sets) if name.strip()]
    _refuse(names, prompts, samples, temperature, top_p)
    chosen = _resolve(subject, {"chat_template": chat_template, "system_prompt": system_prompt})
    length = max_new_tokens or chosen.max_new_tokens
    settings = {"prompts": prompts, "samples": samples, "temperature": temperature, "seed": seed, "top_p": top_p}
    settings |= {"step": chosen.step, "max_new_tokens": length}
    described = chosen.described(settings)
    folder = Path(out) / f"{chosen.label}-{hashlib.sha256(json.dumps(described).encode()).hexdigest()[:8]}"
    evaluations = {
        folder / f"{file_name(name)}.parquet": Evaluation(name, **settings, task=chosen.asking(name)) for name in names
    }

    @cache
    def policy() -> Policy:
        return load_policy(chosen.model, resolve_device("auto"), chosen.precision)

    missing = [path for path in evaluations if not path.exists()]
    for path in missing:
        for caution in evaluations[path].check(policy()):
            log(f"caution: {caution}")
    write_json(folder / "settings.json", described)
    for path, evaluation in evaluations.items():
        if path in missing:
            _sample_set(evaluation, path, policy(), log)
        else:
            log(f"{evaluation.name}: sampled already, {path}")
    return evaluation_table(pd.concat(map(pd.read_parquet, evaluations), ignore_index=True))


def _refuse(names: list[str], prompts: int, samples: int, temperature: float, top_p: float) -> None:
    if not names:
        raise ValueError("no evaluation set given; name at least one, as in --sets reduce,countdown")
    if prompts < 1 or samples < 1:
        raise ValueError(f"an evaluation needs at least one prompt and one sample, got {prompts} and {samples}")
    if not temperature > 0 or not 0 < top_p <= 1:
        raise ValueError(f"sampling needs temperature > 0 and 0 < top-p ≤ 1, got {temperature:g} and {top_p:g}")


def _sample_set(evaluation: Evaluation, path: Path, policy: Policy, log: Callable[[str], None]) -> None:
    """Write the samples of one set to `path`. The parts lie beside it until all are there; a stopped evaluation goes on
    with the first part that is missing."""
    parts = path.with_suffix(".parts")
    starts = evaluation.starts()
    files = [parts / f"{first:06d}.parquet" for first in starts]
    for number, (first, file) in enumerate(zip(starts, files, strict=True), 1):
        if not file.exists():
            write_table(file, evaluation.part(policy, first))
            log(f"{evaluation.name}: part {number} of {len(files)}")
    table = pa.concat_tables(pq.read_table(file) for file in files)
    write_atomic(path, lambda partial: pq.write_table(table, partial, compression="zstd"))
    remove(parts)
    log(
        f"{evaluation.name}: {len(table)} samples, {evaluation.samples} per prompt, temperature "
        f"{evaluation.temperature:g}, top-p {evaluation.top_p:g}, {path}"
    )


def _resolve(subject: str, template: dict[str, object]) -> Subject:
    """The run of that folder or id, or the model; `template` says how prompts are put to a model."""
    try:
        run = open_run(subject)
    except FileNotFoundError:
        return Subject(Path(subject).name, subject, make_section(TaskConfig, template))
    given = [name for name, value in template.items() if value]
    if given:
        raise ValueError(f"run {run.id} brings its own templates; leave out {' and '.join(given)}")
    if not run.checkpoints:
        raise ValueError(f"run {run.id} has no checkpoint yet; train it further first")
    step, folder = list(run.checkpoints.items())[-1]
    config = run.config
    of_run = {"precision": config.policy.precision, "max_new_tokens": config.evaluation.max_new_tokens}
    return Subject(run.id, str(folder), config.task, is_run=True, step=step, **of_run)
