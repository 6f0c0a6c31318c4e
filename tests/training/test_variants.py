"""Adapters, SGD and float16 through whole runs: interrupted and continued, they end with the bytes of a run that was
not; what changes no result has the same run id."""

import hashlib

import pytest
import torch
from safetensors.torch import load_file

import workbench as wb
from workbench.policy.model import load_policy
from workbench.training import train_run
from workbench.training.trainer import Trainer
from workbench.training.update import score_in_parts

BASE = {"evaluation.sets": [], "storage.measure_change_share": 0, "methods": ["grpo", {"name": "kl_reference"}]}
VARIANTS = {
    "lora": {"policy.lora.rank": 4, "optimiser.learning_rate": 3e-3},
    "sgd": {"optimiser.name": "sgd", "optimiser.learning_rate": 2.0, "optimiser.momentum": 0.5},
    "float16": {"policy.precision": "float16", "training.old_logp": "trainer"},
    "checkpointing": {"policy.activation_checkpointing": True},
}


def quiet(_line):
    pass


def fingerprint(folder):
    files = sorted(f for pattern in ("metrics.jsonl", "checkpoints/*/*", "rollouts/*") for f in folder.glob(pattern))
    return {str(f.relative_to(folder)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


@pytest.mark.parametrize("name", VARIANTS)
def test_a_continued_run_ends_bit_identical(name, tmp_path, monkeypatch):
    config = wb.preset("smoke", BASE | VARIANTS[name])
    folder = train_run(config, tmp_path / "whole", quiet)
    original = Trainer.step

    def broken(self, step):
        if step == 4:
            raise RuntimeError("stopped")
        return original(self, step)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "step", broken)
        with pytest.raises(RuntimeError, match="stopped"):
            train_run(config, tmp_path / "stopped", quiet)
    assert fingerprint(train_run(config, tmp_path / "stopped", quiet)) == fingerprint(folder)
    metrics = wb.open_run(folder).metrics
    assert len(metrics) == 4
    checkpoint = folder / "checkpoints" / "000004"
    policy = load_policy(str(checkpoint))
    if name == "lora":
        assert (policy.adapted is not None) and not (checkpoint / "model.safetensors").exists()
        moved = [t for key, t in load_file(checkpoint / "adapter_model.safetensors").items() if "lora_B" in key]
        assert all(t.abs().max() > 0 for t in moved)
        assert {p.stat().st_size < 500_000 for p in checkpoint.glob("*.safetensors")} == {True}
    if name == "float16":
        assert {"grad/loss_scale", "grad/skipped"} <= {*metrics}


def test_checkpointing_has_the_run_id_and_the_bytes_of_a_run_without(tmp_path):
    one, two = (wb.preset("smoke", BASE | extra) for extra in ({}, VARIANTS["checkpointing"]))
    assert one.run_id == two.run_id
    folders = [train_run(config, tmp_path / str(i), quiet) for i, config in enumerate((one, two))]
    assert fingerprint(folders[0]) == fingerprint(folders[1])


def test_the_kl_to_the_base_policy_is_that_of_a_second_copy(tmp_path):
    config = wb.preset("smoke", BASE | VARIANTS["lora"])
    trainer = Trainer(config)
    trainer.step(1)
    rollouts = trainer.step(2).rollouts
    twin = load_policy(config.policy.model)
    expected = score_in_parts(twin, rollouts, 4096).logp
    torch.testing.assert_close(rollouts.tokens.ref_logp, expected, rtol=0, atol=1e-5)
    assert (rollouts.tokens.old_logp - rollouts.tokens.ref_logp).abs().max() > 1e-3
