"""One rollout step of a stored run, taken for real under another setting: what a forecast is held against."""

from __future__ import annotations

import copy
import hashlib
import json
from pathlib import Path

from workbench.config import RunConfig, make_config
from workbench.metrics.change import entropy_change
from workbench.store import Run
from workbench.store.files import write_json
from workbench.store.layout import Layout
from workbench.training.checkpoints import load_checkpoint
from workbench.training.trainer import StepResult, Trainer
from workbench.training.whatif import replay

FOLDER = "branches"


class Branch:
    """The run as it stood before `step`: its last checkpoint before it (or its start), and from there the steps trained
    again, which on CPU is bit for bit what the run did."""

    def __init__(self, run: Run, step: int):
        self.run, self.step = run, step
        measured = run.config.model_dump(mode="json") | {"storage": {"measure_change_share": 1.0}}
        self.config = make_config(measured)
        self._trainer = Trainer(self.config)
        done = load_checkpoint(Layout(run.path), self._trainer, before=step)
        for again in range(done + 1, step):
            self._trainer.step(again)
        trainer = self._trainer
        self._start = copy.deepcopy(
            (trainer.policy.model.state_dict(), trainer.optimiser.state_tensors(), trainer.methods.state_dict())
        )
        self._walk, self._updates = trainer.collector.walk.state_dict(), trainer.optimiser.updates

    def take(self, config: RunConfig | None = None) -> StepResult:
        """The step under `config` (its methods and objective; the run's own by default), from the same start each time.

        Methods that the run had keep their state; others have watched its measures.
        """
        config = config or self.config
        changed = self.config.model_copy(update={"methods": config.methods, "objective": config.objective})
        weights, moments, states = copy.deepcopy(self._start)
        policy = self._trainer.policy
        policy.model.load_state_dict(weights, strict=False)
        trainer = Trainer(changed, policy)
        trainer.optimiser.load_state_tensors(moments, self._updates)
        trainer.collector.walk.load_state_dict(self._walk)
        replay(trainer.methods, changed, self.run.metrics, self.step)
        had = {m["name"]: (m, state) for m, state in zip(self.config.methods, states, strict=True)}
        for entry, method in zip(changed.methods, trainer.methods.methods, strict=True):
            if entry["name"] in had and had[entry["name"]][0] == entry:
                method.load_state_dict(had[entry["name"]][1])
        return trainer.step(self.step)


def measured_change(result: StepResult) -> float:
    """ΔH of a step whose tokens were all scored again, nats."""
    return float(entropy_change(result.rollouts.tokens).mean())


def branch_path(run: Run, step: int, config: RunConfig) -> Path:
    """Where the outcome of this branch is kept: a function of the step, the methods and the objective."""
    content = config.model_dump(mode="json", include={"methods", "objective"})
    key = hashlib.sha256(json.dumps([step, content], sort_keys=True).encode()).hexdigest()[:8]
    return Path(run.path) / FOLDER / f"{step:06d}-{key}.json"


def take_branch(run: Run, step: int, config: RunConfig, label: str) -> dict:
    """Take the step under `config`, or find it taken; returns and keeps {step, setting, measured (ΔH in nats), actual
    (ΔH the run had on all of its tokens), same_rollouts}."""
    path = branch_path(run, step, config)
    if path.exists():
        return json.loads(path.read_text())
    result = Branch(run, step).take(config)
    stored = run.rollouts(step).tokens if step in run.rollout_steps else None
    same = stored is not None and list(stored["token"]) == result.rollouts.tokens.token.tolist()
    outcome = {"step": step, "setting": label, "measured": measured_change(result), "same_rollouts": same}
    write_json(path, outcome)
    return outcome
