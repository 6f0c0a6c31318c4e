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
from workbench.plots.whole_table import WholeTable
from workbench.presets import preset
from workbench.report import Claims, Provenance, provenance
from workbench.store import Run, runs_root
from workbench.store.layout import outputs_root
from workbench.study.cells import RunCell
from workbench.study.claims import Claim, Finding, claims_table, comparison_note, evaluate
from workbench.study.definitions import Definition, arms, claims, definition
from workbench.study.effects import Held, NotMeasured
from workbench.study.executors import Resources
from workbench.study.grid import grid_of
from workbench.study.record import Entry, Record, commit_of
from workbench.study.running import execute, plan
from workbench.study.scores import finite, scores

BUNDLED = {"evaluation.sets": ["reduce", "countdown"]}
SCALES = {
    # Everything runs, nothing is learnt; 16 prompts, so that 16 updates per rollout are possible, and as many to choose
    # from as the largest subset has.
    "smoke": {
        **BUNDLED,
        "task.train_size": 512,
        "rollout.prompts": 16,
        "training.updates_per_rollout": 4,
        "evaluation.prompts": 4,
        "evaluation.samples": 16,
        "evaluation.every": 2,
    },
    # The first 80 of the preset's steps: its rate is constant, so they are those of a longer run.
    "cpu": {
        **BUNDLED,
        "training.steps": 80,
        "evaluation.prompts": 64,
        "evaluation.samples": 16,
        "evaluation.every": 10,
    },
    "gpu": {**BUNDLED, "evaluation.every": 20},
    "paper": {"evaluation.sets": ["math/aime24", "instructions/ifeval"]},
}
"""What studies change in a preset: evaluation often enough for correlations over checkpoints, on the task trained on
and on another one."""
OTHER = "out-of-domain"
"""The second evaluation set of a run, as scores name it; the first, of the task trained on, needs no name."""


ENTROPY_UNIT = "nats per token"


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
    def arms(self) -> WholeTable:
        """One row per arm: what differs from plain GRPO, and how its runs stand."""
        rows = []
        for arm in self.definition.arms:
            states = [self.cells[arm, seed].own_standing() for seed in self.seeds]
            done = sum(stands is not None and stands.state == "done" for stands in states)
            rows.append({"arm": arm, "differs in": _differs(arm), "finished": f"{done} of {len(self.seeds)} seeds"})
        return WholeTable(rows)

    def ends(self, *measures: str) -> WholeTable:
        """One row per arm: measures (by default the study's) of the last evaluation, mean over seeds, and what the arm
        cost as a multiple of the first one's: `tokens` sampled, and `seconds` of a rollout step, which say something
        only where runs had the machine to themselves."""
        scores = self.scores(*measures)
        last = scores[scores["step"] == scores.groupby(["arm", "seed"])["step"].transform("max")]
        table = last.pivot_table(index="arm", columns="measure", values="value", sort=False)
        metrics = self.metrics.reindex(columns=["arm", "length/mean", "sampling/groups_per_kept", "time/step"])
        sampled = metrics["length/mean"] * metrics["sampling/groups_per_kept"].fillna(1.0)
        cost = pd.DataFrame({"arm": metrics["arm"], "tokens": sampled, "seconds": metrics["time/step"]})
        cost = cost.groupby("arm", sort=False).agg({"tokens": "mean", "seconds": "median"})
        table = table.join(cost / cost.iloc[0]).assign(seeds=last.groupby("arm")["seed"].nunique())
        return WholeTable(table.rename_axis(columns=None).reset_index())

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
        parts = [_labelled(run.metrics, *key) for key, run in self.runs.stored.items()]
        return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=["arm", "seed", "step"])

    def scores(self, *measures: str) -> pd.DataFrame:
        """Measures of every evaluation (by default the study's): columns arm, seed, step, measure, value. A measure is
        of the task trained on, `out-of-domain:measure` of the other one."""
        rows = []
        for (arm, seed), _ in self.runs.stored.items():
            for measure in measures or self.definition.measures:
                where, _, name = measure.rpartition(":")
                found = self.runs.series(arm, name, seed, where or None)
                rows += [(arm, seed, int(step), measure, float(value)) for step, value in found.items()]
        return pd.DataFrame(rows, columns=["arm", "seed", "step", "measure", "value"])

    def samples(self) -> pd.DataFrame:
        """The samples of the first and the last evaluation of every finished run: arm, seed and the numbers of
        `Run.evals`, the task trained on first; no texts."""
        parts = []
        for key, run in self.runs.stored.items():
            evals = run.evals.drop(columns=["prompt_text", "text", "derivation"], errors="ignore")
            ends = evals[evals["step"].isin([evals["step"].min(), evals["step"].max()])]
            trained = ends["set"] == _set(run)
            parts.append(_labelled(pd.concat([ends[trained], ends[~trained]]), *key))
        return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=["arm", "seed", "step", "set"])

    def evaluations(self) -> pd.DataFrame:
        """The samples of every evaluation of every finished run on the task trained on, as `samples` has them."""
        parts = []
        for key, run in self.runs.stored.items():
            evals = run.evals[["step", "set", "prompt", "sample", "correct"]]
            parts.append(_labelled(evals[evals["set"] == _set(run)], *key))
        return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=["arm", "seed", "step", "set"])

    @property
    def targets(self) -> dict[str, float]:
        """Arm -> the entropy (nats) that a claim has it hold, of the arms that have run."""
        held = [claim.effect for claim in claims(self.name) if isinstance(claim.effect, Held)]
        ran = [effect for effect in held if self.runs.seeds(effect.arm)]
        return {
            effect.arm: float(np.mean([effect.level(self.runs, seed) for seed in self.runs.seeds(effect.arm)]))
            for effect in ran
        }

    @property
    def published(self) -> pd.DataFrame:
        """The published entropy curves of the arms: columns arm, step, value (nats, smoothed), label, unit."""
        return _curves(self.definition.published)

    def further(self, name: str) -> pd.DataFrame:
        """Further published curves of the arms, such as "reward", with columns as `published` has them and values in
        `unit`; entropies are smoothed. Raises `KeyError` naming those there are."""
        if name not in self.definition.further:
            known = ", ".join(self.definition.further) or "none"
            raise KeyError(f"study {self.name} has no published curves '{name}'; there are: {known}")
        return _curves(self.definition.further[name])

    def findings(self, record: Record | None = None) -> list[Finding]:
        """Every claim, evaluated on the finished runs and, for seeds that lack one, on what `record` holds of the same
        runs, with the published value beside it."""
        record = record or Record()
        return [
            evaluate(with_published(claim, self.definition), self.runs, self.recorded(claim, record))
            for claim in claims(self.name)
        ]

    def recorded(self, claim: Claim, record: Record) -> dict[int, float]:
        """Seed -> value of the claim's effect, of the seeds `record` holds."""
        runs = {seed: self.hashes(claim, seed) for seed in self.seeds}
        return record.values(claim.identifier, repr(claim.effect), runs)

    def entries(self) -> list[Entry]:
        """What every claim measured at every seed whose runs are finished."""
        return [
            Entry(
                finding.claim.identifier,
                repr(finding.claim.effect),
                seed,
                self.hashes(finding.claim, seed),
                value,
                commit_of(self.runs.stored[arm, seed] for arm in finding.claim.arms),
            )
            for finding in self.findings()
            for seed, value in zip(finding.seeds, finding.values, strict=True)
        ]

    def hashes(self, claim: Claim, seed: int) -> str:
        """Hashes of the configs of a claim's runs, in order of its arms."""
        return " ".join(self.cells[arm, seed].config.content_hash for arm in claim.arms)

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
    """Stored runs by arm and seed, as claims read them (`Measured`). Being finished they are read once."""

    def __init__(self, stored: dict[tuple[str, int], Run]):
        self.stored = stored
        self._series: dict[tuple, pd.Series] = {}
        self._tables: dict[tuple, pd.DataFrame] = {}

    def seeds(self, arm: str) -> set[int]:
        return {seed for name, seed in self.stored if name == arm}

    def curve(self, arm: str, metric: str, seed: int) -> np.ndarray:
        metrics = self._table(arm, seed, "metrics")
        if metric not in metrics or metrics[metric].isna().all():
            raise NotMeasured(f"{arm} did not record {metric}")
        return metrics[metric].to_numpy(dtype=float)

    def score(self, arm: str, measure: str, seed: int, where: str | None = None) -> np.ndarray:
        return finite(self.series(arm, measure, seed, where))

    def series(self, arm: str, measure: str, seed: int, where: str | None = None) -> pd.Series:
        """A measure of every evaluation of one run by step: of the task trained on, or `where` else. Raises
        `NotMeasured`."""
        key = (arm, measure, seed, where)
        if key not in self._series:
            run, evals = self.stored[arm, seed], self._table(arm, seed, "evals")
            chosen = evals[evals["set"] == _set(run, where)] if len(evals) else evals
            try:
                self._series[key] = scores(chosen, measure)
            except (KeyError, ValueError) as error:
                raise NotMeasured(f"{arm} has no {measure} of {where or 'its evaluations'}: {error}") from error
        return self._series[key]

    def _table(self, arm: str, seed: int, name: str) -> pd.DataFrame:
        if (arm, seed, name) not in self._tables:
            self._tables[arm, seed, name] = getattr(self.stored[arm, seed], name)
        return self._tables[arm, seed, name]


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
    base = {"name": "study"} | SCALES[scale]
    return preset(scale, base | arms()[arm] | {"seed": seed})


def with_published(claim: Claim, found: Definition) -> Claim:
    """`claim` with the effect of the published curves where it has no published value and they allow one."""
    if claim.published is not None:
        return claim
    value = evaluate(claim, PublishedCurves(found.published)).mean
    return Claim(**{**claim.__dict__, "published": None if np.isnan(value) else value})


def _set(run: Run, where: str | None = None) -> str:
    """The evaluation set that scores mean: the run's first, its second where it is `OTHER`, or the one named."""
    sets = run.config.evaluation.sets
    return sets[0] if where is None else sets[1] if where == OTHER else where


def _curves(names: dict[str, str]) -> pd.DataFrame:
    """Published curves by arm, one below the other; entropies are smoothed, for they are printed raw."""
    parts = [pd.DataFrame(columns=["arm", "step", "value", "label", "unit"])]
    for arm, name in names.items():
        curve = published_curve(name)
        unit = curve.attrs["unit"]
        value = ema(curve["value"]) if unit == ENTROPY_UNIT else curve["value"]
        parts.append(curve.assign(arm=arm, value=value, unit=unit))
    return pd.concat(parts[1:] or parts, ignore_index=True)


def _labelled(table: pd.DataFrame, arm: str, seed: int) -> pd.DataFrame:
    """`table` with the columns arm and seed before its own."""
    return pd.concat([pd.DataFrame({"arm": arm, "seed": seed}, index=table.index), table], axis=1)


def _done(cell: RunCell) -> bool:
    stands = cell.own_standing()
    return stands is not None and stands.state == "done"


def _differs(arm: str) -> str:
    """What the arm sets, in words: its methods with their parameters, then other fields."""
    given = dict(arms()[arm])
    said = [" + ".join(_method(method) for method in given.pop("methods", []))]
    said += [f"{name} = {yaml.safe_dump(value).splitlines()[0]}" for name, value in given.items()]
    return ", ".join(filter(None, said)) or "nothing: plain GRPO"


def _method(method: str | dict) -> str:
    if isinstance(method, str):
        return method
    given = ", ".join(f"{name} {value}" for name, value in method.items() if name != "name")
    return f"{method['name']} ({given})"
