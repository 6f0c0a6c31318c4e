"""A study in a notebook: its runs made to exist, read as data frames, and its claims judged."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from workbench.config import ConfigError, RunConfig
from workbench.metrics.series import ema
from workbench.plots.published import published_curve
from workbench.presets import preset
from workbench.report import Claims, Provenance, provenance
from workbench.store import Run, runs_root
from workbench.store.layout import outputs_root
from workbench.study.cells import RunCell
from workbench.study.claims import Claim, Finding, claims_table, comparison_note, evaluate
from workbench.study.definitions import Definition, arms, claims, definition, study_names
from workbench.study.effects import NotMeasured
from workbench.study.executors import Resources
from workbench.study.grid import grid_of
from workbench.study.running import execute, plan
from workbench.study.scores import finite, scores

SCALES = {
    # Everything runs, nothing is learnt; 16 prompts, so that 16 updates per rollout are possible, and as many to choose
    # from as the largest subset has.
    "smoke": {
        "task.train_size": 512,
        "rollout.prompts": 16,
        "training.updates_per_rollout": 4,
        "evaluation.prompts": 4,
        "evaluation.samples": 16,
        "evaluation.every": 2,
    },
    # The first 80 of the preset's steps: its rate is constant, so they are those of a longer run.
    "cpu": {"training.steps": 80, "evaluation.prompts": 64, "evaluation.samples": 16, "evaluation.every": 10},
    "gpu": {"evaluation.every": 20},
    "paper": {},
}
"""What studies change in a preset: evaluation often enough for correlations over checkpoints, on two sets."""
SETS = ("reduce", "countdown")
"""Evaluation sets: the task trained on, and one that is not."""


class Study:
    """The arms of the study `name` at `scale` (smoke, cpu, gpu, paper) with these seeds, and the runs there are of them
    under `root` (by default outputs/runs). Raises `ConfigError` for a name or scale there is not, or no seed."""

    def __init__(self, name: str, scale: str = "cpu", seeds: Sequence[int] = (0, 1, 2), root: str | Path | None = None):
        self.name, self.scale, self.definition = name, scale, definition(name)
        self.seeds = tuple(seeds)
        if scale not in SCALES:
            raise ConfigError(f"unknown scale '{scale}'; it is one of {', '.join(SCALES)}")
        if not self.seeds:
            raise ConfigError("seeds is empty; name at least one, and three for verdicts")
        self.root = runs_root(root)
        self.cells = {
            (arm, seed): RunCell(arm_config(arm, scale, seed), self.root, {"arm": arm, "seed": seed})
            for arm in self.definition.arms
            for seed in self.seeds
        }

    def __repr__(self) -> str:
        return str(self._plan)

    @property
    def _plan(self):
        return plan(grid_of(self.name, self.cells.values(), outputs_root()))

    @property
    def arms(self) -> pd.DataFrame:
        """One row per arm: what differs from plain GRPO, and how its runs stand."""
        rows = []
        for arm in self.definition.arms:
            states = [self.cells[arm, seed].own_standing() for seed in self.seeds]
            done = sum(stands is not None and stands.state == "done" for stands in states)
            rows.append({"arm": arm, "differs in": _differs(arm), "finished": f"{done} of {len(self.seeds)} seeds"})
        return pd.DataFrame(rows)

    def train(self, jobs: int = 0) -> None:
        """Make all runs exist: those that are finished are left alone, interrupted ones continued, `jobs` at a time.

        Raises `RuntimeError` naming the runs that failed, once all others are done.
        """
        chosen = self._plan
        print(chosen, flush=True)
        if not execute(chosen, resources=Resources(jobs=jobs), log=lambda line: print(line, flush=True)):
            failed = [cell for cell in chosen.grid.table().to_dict("records") if cell["state"] != "done"]
            told = "; ".join(
                f"{cell['arm']}, seed {cell['seed']}: {cell['reason'] or cell['state']}" for cell in failed
            )
            raise RuntimeError(f"{len(failed)} runs are not done: {told}")

    @cached_property
    def runs(self) -> ArmRuns:
        """The finished runs, by arm and seed."""
        return ArmRuns({key: Run(cell.output) for key, cell in self.cells.items() if _done(cell)})

    def run(self, arm: str = "", seed: int | None = None) -> Run:
        """The finished run of one arm, by default the first, of the first seed unless told. Raises `KeyError` naming
        the runs there are."""
        arm = arm or self.definition.arms[0]
        key = (arm, self.seeds[0] if seed is None else seed)
        if key not in self.runs.stored:
            known = ", ".join(f"{name} {number}" for name, number in self.runs.stored)
            raise KeyError(f"study {self.name} has no finished run of {arm}, seed {key[1]}; it has: {known or 'none'}")
        return self.runs.stored[key]

    @property
    def metrics(self) -> pd.DataFrame:
        """Every finished run's metrics: columns arm, seed, step and the metrics of `Run.metrics`."""
        parts = {key: run.metrics for key, run in self.runs.stored.items()}
        if not parts:
            return pd.DataFrame(columns=["arm", "seed", "step"])
        return pd.concat(parts, names=["arm", "seed"]).reset_index(["arm", "seed"]).reset_index(drop=True)

    def scores(self, *measures: str, where: str | None = None) -> pd.DataFrame:
        """Measures of every evaluation (by default the study's): columns arm, seed, step, measure, value."""
        rows = []
        for (arm, seed), _ in self.runs.stored.items():
            for measure in measures or self.definition.measures:
                found = self.runs.series(arm, measure, seed, where)
                rows += [(arm, seed, int(step), measure, float(value)) for step, value in found.items()]
        return pd.DataFrame(rows, columns=["arm", "seed", "step", "measure", "value"])

    @property
    def published(self) -> pd.DataFrame:
        """The published entropy curves of the arms, smoothed: columns arm, step, value (nats), label."""
        parts = [published_curve(name).assign(arm=arm) for arm, name in self.definition.published.items()]
        parts = [part.assign(value=ema(part["value"])) for part in parts]
        return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=["arm", "step", "value", "label"])

    def findings(self) -> list[Finding]:
        """Every claim, evaluated on the finished runs, with the published value beside it."""
        return [evaluate(with_published(claim, self.definition), self.runs) for claim in claims(self.name)]

    def claims(self) -> Claims:
        """The claims with their verdicts, as a table."""
        found = self.findings()
        return Claims(claims_table(found), comparison_note(found))

    def provenance(self) -> Provenance:
        """Where the runs come from: their ids and the surroundings of the first."""
        runs = list(self.runs.stored.values())
        if not runs:
            return Provenance({"runs": "none finished"})
        first = provenance(runs[0]).entries
        return Provenance({"runs": f"{len(runs)}: {', '.join(run.id for run in runs)}"} | first)


class ArmRuns:
    """Stored runs by arm and seed, as claims read them (`Measured`)."""

    def __init__(self, stored: dict[tuple[str, int], Run]):
        self.stored = stored
        self._series: dict[tuple, pd.Series] = {}

    def seeds(self, arm: str) -> set[int]:
        return {seed for name, seed in self.stored if name == arm}

    def curve(self, arm: str, metric: str, seed: int) -> np.ndarray:
        metrics = self.stored[arm, seed].metrics
        if metric not in metrics or metrics[metric].isna().all():
            raise NotMeasured(f"{arm} did not record {metric}")
        return metrics[metric].to_numpy(dtype=float)

    def score(self, arm: str, measure: str, seed: int, where: str | None = None) -> np.ndarray:
        return finite(self.series(arm, measure, seed, where))

    def series(self, arm: str, measure: str, seed: int, where: str | None = None) -> pd.Series:
        """A measure of every evaluation of one run, by step. Raises `NotMeasured`."""
        key = (arm, measure, seed, where)
        if key not in self._series:
            evals = self.stored[arm, seed].evals
            chosen = evals[evals["set"] == (where or evals["set"].iloc[0])] if len(evals) else evals
            try:
                self._series[key] = scores(chosen, measure)
            except (KeyError, ValueError) as error:
                raise NotMeasured(f"{arm} has no {measure} of {where or 'its evaluations'}: {error}") from error
        return self._series[key]


class PublishedCurves:
    """Published entropy curves, as claims read them: one "seed" for each arm that has a curve."""

    def __init__(self, names: dict[str, str]):
        self.names = names

    def seeds(self, arm: str) -> set[int]:
        return {0} if arm in self.names else set()

    def curve(self, arm: str, metric: str, seed: int) -> np.ndarray:
        if metric != "entropy/mean":
            raise NotMeasured(f"there is no published curve of {metric}")
        return published_curve(self.names[arm])["value"].to_numpy(dtype=float)

    def score(self, arm: str, measure: str, seed: int, where: str | None = None) -> np.ndarray:
        raise NotMeasured(f"there is no published curve of {measure}")


def arm_config(arm: str, scale: str, seed: int) -> RunConfig:
    """The config of one run: the preset, what studies change in it, and what the arm differs in."""
    base = {"name": "study", "evaluation.sets": list(SETS)} | SCALES[scale]
    return preset(scale, base | arms()[arm] | {"seed": seed})


def scorecard(scale: str = "cpu", seeds: Sequence[int] = (0, 1, 2), root: str | Path | None = None) -> Claims:
    """All claims of all papers, judged on the runs there are at `scale`; nothing is trained."""
    found = [finding for name in study_names() for finding in Study(name, scale, seeds, root).findings()]
    return Claims(claims_table(found), comparison_note(found))


def with_published(claim: Claim, found: Definition) -> Claim:
    """`claim` with the effect of the published curves where it has no published value and they allow one."""
    if claim.published is not None:
        return claim
    value = evaluate(claim, PublishedCurves(found.published)).mean
    return Claim(**{**claim.__dict__, "published": None if np.isnan(value) else value})


def _done(cell: RunCell) -> bool:
    stands = cell.own_standing()
    return stands is not None and stands.state == "done"


def _differs(arm: str) -> str:
    shown = {name: yaml.safe_dump(value, default_flow_style=True).split("\n")[0] for name, value in arms()[arm].items()}
    return ", ".join(f"{name}: {value}" for name, value in shown.items()) or "nothing: plain GRPO"
