"""A small set of stored runs that opens every view of the explorer: three methods, three seeds, minutes on two cores.

The task has few prompts, so that each returns every four steps and can be followed through training; every step's
tokens are kept and scored again after its updates. They are examples to explore, not evidence: the cpu preset is that.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

from workbench.config import RunConfig
from workbench.presets import preset
from workbench.store import Run, runs_root

SEEDS = (0, 1, 2)
BASE = {
    "task.train_size": 64,
    "rollout.prompts": 16,
    "rollout.samples": 8,
    "training.steps": 80,
    "evaluation.prompts": 32,
    "evaluation.samples": 8,
    "storage.keep_rollouts_every": 1,
    "storage.measure_change_share": 1.0,
}
ARMS = {
    "grpo": ["grpo"],
    "clip-higher": ["grpo", "clip_higher"],
    "reweight": ["grpo", {"name": "pos_adv_reweight", "target": 0.2}],
}
FILM = {"storage.checkpoint_every": 8, "storage.keep_checkpoints": 10}
"""Of the first seed of each arm: checkpoints for the film-strip, 10 MB each."""
PLAIN = {"storage.checkpoint_every": 40, "storage.keep_checkpoints": 1}


def demo_configs(steps: int | None = None) -> list[RunConfig]:
    """The configs of the set, in the order of training; `steps` shortens every run (for tests)."""
    shorter = {} if steps is None else {"training.steps": steps}
    return [
        preset("cpu", BASE | shorter | {"name": f"demo-{arm}", "seed": seed, "methods": methods} | storage)
        for seed, storage in zip(SEEDS, (FILM, PLAIN, PLAIN), strict=True)
        for arm, methods in ARMS.items()
    ]


def make_demo(
    root: str | Path | None = None, log: Callable[[str], None] = print, configs: list[RunConfig] | None = None
) -> list[Run]:
    """Train what is missing of the demo set, one process per core, and return its runs.

    A finished run is found by its hash and not trained again; an interrupted one continues.
    """
    configs = demo_configs() if configs is None else configs
    root = runs_root(root).resolve()
    folders = [root / config.run_id for config in configs]
    todo = [config for config, folder in zip(configs, folders, strict=True) if not _finished(folder)]
    log(f"demo: {len(configs) - len(todo)} of {len(configs)} runs are there")
    if todo:
        _train(todo, root, log)
    return [Run(folder) for folder in folders]


def _finished(folder: Path) -> bool:
    return (folder / "status.json").exists() and Run(folder).status["state"] == "finished"


def _train(configs: list[RunConfig], root: Path, log: Callable[[str], None]) -> None:
    spawn = multiprocessing.get_context("spawn")
    workers = min(len(configs), os.cpu_count() or 1)
    with ProcessPoolExecutor(workers, mp_context=spawn, initializer=_one_thread) as pool:
        waiting = {pool.submit(_train_one, config.to_yaml(), root): config for config in configs}
        try:
            for done in as_completed(waiting):
                done.result()
                log(f"demo: {waiting[done].run_id} finished")
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)  # runs under way stop at a step boundary, resumable
            raise


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


def _train_one(config: str, root: Path) -> None:
    """In a worker: train the config written as YAML, without a line per step."""
    import yaml

    from workbench.config import make_config
    from workbench.training.run import train_run

    train_run(make_config(yaml.safe_load(config)), root, log=lambda line: None)
