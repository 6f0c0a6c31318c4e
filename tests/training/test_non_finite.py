"""A loss, gradient or log-prob that is not finite stops the run, leaves the batch on disk and the last checkpoint
usable: training on without the cause ends bit-identical to a run that never met it."""

import hashlib
import math

import pandas as pd
import pytest
import torch

import workbench as wb
from workbench.methods import Composition
from workbench.policy.model import Policy, load_policy
from workbench.tables import NonFiniteError
from workbench.training import train_run
from workbench.training.optimiser import Optimiser

CONFIG = wb.preset(
    "smoke",
    {
        "training.steps": 4,
        "training.old_logp": "trainer",
        "evaluation.sets": [],
        "storage.measure_change_share": 0,
        "methods": ["grpo", {"name": "kl_reference", "coefficient": 0.001}],
    },
)


def quiet(_line):
    pass


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    return fingerprint(train_run(CONFIG, tmp_path_factory.mktemp("undisturbed"), quiet))


def fingerprint(folder):
    kept = sorted(f for pattern in ("metrics.jsonl", "checkpoints/*/*", "rollouts/*") for f in folder.glob(pattern))
    return {str(f.relative_to(folder)): hashlib.sha256(f.read_bytes()).hexdigest() for f in kept}


def calls_in_step(step, per_step):
    """True during the first of `per_step` calls of step `step`."""
    count = 0

    def due():
        nonlocal count
        count += 1
        return count == (step - 1) * per_step + 1

    return due


def break_sampling(monkeypatch):
    original, due = Policy.logits, iter([False] * 50)

    def broken(self, hidden):
        logits = original(self, hidden)
        return logits if next(due, True) is False else logits.index_fill(0, torch.tensor([0]), math.nan)

    monkeypatch.setattr(Policy, "logits", broken)


def break_scoring(monkeypatch):
    """Step 3's scoring by the trainer: two of these calls per step score at once, the rest are updates."""
    import workbench.training.trainer as module

    original, due = module.score_in_parts, calls_in_step(3, 2)

    def broken(policy, rollouts, budget, with_sums=False):
        scored = original(policy, rollouts, budget, with_sums)
        if due():
            scored.logp[7] = math.nan
        return scored

    monkeypatch.setattr(module, "score_in_parts", broken)


def break_loss(monkeypatch):
    original, due = Composition.weight, calls_in_step(3, 2)

    def broken(self, batch):
        weight = original(self, batch)
        return weight.index_fill(0, torch.tensor([3]), math.inf) if due() else weight

    monkeypatch.setattr(Composition, "weight", broken)


def break_gradient(monkeypatch):
    original, due = Optimiser.step, calls_in_step(3, 2)

    def broken(self):
        if due():
            self.parameters[0].grad[0, 0] = math.inf
        return original(self)

    monkeypatch.setattr(Optimiser, "step", broken)


@pytest.mark.parametrize(
    ("cause", "message", "column"),
    [
        (break_sampling, "log-prob while sampling prompt 0, sample [0-3], position", "rollout_logp"),
        (break_scoring, "old_logp of 1 of .* prompt 0, sample 0, position 7", "old_logp"),
        (break_loss, "loss of 1 of .* position 3", "loss"),
        (break_gradient, "gradient at update 4", "logp"),
    ],
)
def test_the_run_stops_leaves_the_batch_and_goes_on_from_its_checkpoint(
    tmp_path, monkeypatch, undisturbed, cause, message, column
):
    with monkeypatch.context() as patch:
        cause(patch)
        with pytest.raises(NonFiniteError, match=message):
            train_run(CONFIG, tmp_path, quiet)
    run = wb.open_run(tmp_path / CONFIG.run_id)
    failed = run.status["step"] + 1
    assert run.status["state"] == "failed" and "non-finite" in run.status["reason"]
    tokens, sequences = (
        pd.read_parquet(run.path / "non_finite" / f"{failed:06d}.{table}.parquet") for table in ("tokens", "sequences")
    )
    assert len(tokens) == sequences["length"].sum() > 0
    assert column in tokens and sequences["prompt_text"].str.endswith("=").all()
    if column in ("old_logp", "loss"):
        assert (~tokens[column].map(math.isfinite)).sum() == 1
    for checkpoint in run.checkpoints.values():
        load_policy(str(checkpoint))
    folder = train_run(CONFIG, tmp_path, quiet)
    assert fingerprint(folder) == undisturbed
    assert (folder / "non_finite").is_dir()


def test_no_room_for_the_batch_does_not_hide_the_reason(tmp_path, monkeypatch):
    break_loss(monkeypatch)
    (tmp_path / CONFIG.run_id).mkdir()
    (tmp_path / CONFIG.run_id / "non_finite").write_text("a file where the folder should be")
    lines = []
    with pytest.raises(NonFiniteError, match="loss"):
        train_run(CONFIG, tmp_path, lines.append)
    assert any("could not be written" in line for line in lines)
    assert "loss" in wb.open_run(tmp_path / CONFIG.run_id).status["reason"]
