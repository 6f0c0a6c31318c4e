"""The what-if lab against the trainer: same classes, same numbers; and against the formula of the ledger."""

import numpy as np
import pytest
import torch

import workbench as wb
from workbench.metrics.change import first_order_push
from workbench.metrics.stored import rollouts_from_frames
from workbench.store import open_run
from workbench.training.run import train_run
from workbench.training.settings import NONE, SELECTIONS, Setting
from workbench.training.whatif import WhatIf

ARMS = {
    "grpo": ["grpo"],
    "selections": ["dr_grpo", {"name": "high_entropy_mask", "fraction": 0.3}, {"name": "clip_cov", "fraction": 0.01}],
    "controllers": ["grpo", {"name": "pos_adv_reweight", "target": 0.1, "initial": 0.3}, "adaptive_entropy"],
    "sequence ratio": ["grpo", "gspo", {"name": "entropy_bonus", "coefficient": 0.01}],
    "kept": ["grpo", {"name": "kl_cov", "fraction": 0.01}, {"name": "sample_polarity"}],
    "filters": ["rloo", "clip_higher", {"name": "clip_b", "mu": 1.0}, {"name": "dual_clip"}],
}


def train(folder, methods, **overrides):
    overrides = {"methods": methods, "storage.keep_rollouts_every": 1, "evaluation.sets": []} | overrides
    config = wb.preset(
        "smoke", {"training.steps": 2, "rollout.samples": 8, "optimiser.learning_rate": 3e-3} | overrides
    )
    return open_run(train_run(config, folder, log=lambda line: None))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    tight = {
        "storage.measure_change_share": 1.0,
        "training.updates_per_rollout": 4,
        "objective.clip_low": 0.05,
        "objective.clip_high": 0.05,
    }
    return train(tmp_path_factory.mktemp("runs"), ARMS["grpo"], **tight)


DENOMINATORS = {"grpo": "sequences", "selections": "constant"}


@pytest.mark.parametrize("arm", ARMS)
def test_actual_settings_give_the_trainers_own_numbers(tmp_path, arm):
    denominator = DENOMINATORS.get(arm, "tokens")
    run = train(tmp_path, ARMS[arm], **{"objective.denominator": denominator})
    for step in run.rollout_steps:
        lab, stored = WhatIf(run, step), run.rollouts(step).tokens
        trained = stored["logp"].notna().to_numpy()
        assert trained.any()
        for name in ("clip_low", "clip_high", "weight"):
            mine = getattr(lab.actual, name).numpy()
            np.testing.assert_allclose(mine[trained], stored[name][trained], rtol=1e-6, atol=1e-6, err_msg=name)
            assert (mine[~trained] == 0).all()
        logged = run.metrics.set_index("step").loc[step, "loss/total"]
        assert np.mean(lab.actual.losses) == pytest.approx(logged, abs=1e-6)


def test_plain_pushes_are_those_of_the_ledger(run):
    stored = run.rollouts(1)
    lab = WhatIf(run, 1)
    expected = first_order_push(rollouts_from_frames(stored.sequences, stored.tokens).tokens)
    torch.testing.assert_close(lab.push(lab.actual), expected, atol=1e-6, rtol=1e-5)
    assert lab.actual.clipped.any()


def test_the_entropy_term_is_the_derivative_of_entropy_in_the_logits():
    logits = torch.randn(7, dtype=torch.float64, requires_grad=True)
    p = logits.softmax(0)
    entropy = -(p * p.log()).sum()
    (slope,) = torch.autograd.grad(entropy, logits)
    p = p.detach()
    s = p * (entropy.detach() + p.log())
    expected = (p * (s.square() / p)).sum()  # mean over sampled tokens of the estimate S²/π
    torch.testing.assert_close(expected, slope.square().sum())


@pytest.mark.parametrize(
    ("setting", "changes"),
    [
        (Setting(clip_high=0.0), "clip_high"),
        (Setting(clip_low=0.0), "clip_low"),
        (Setting(positive_weight=0.0), "weight"),
        (Setting(entropy_coefficient=0.1), "entropy_gradient"),
        (Setting(baseline="dr_grpo"), "advantage"),
        *[(Setting(selection=name, selection_value=0.05), "gradient") for name in ("high_entropy_mask", "clip_cov")],
        (Setting(selection="clip_b", selection_value=0.5), "weight"),
    ],
    ids=lambda value: value.describe() if isinstance(value, Setting) else value,
)
def test_each_setting_changes_what_it_is_about(run, setting, changes):
    lab = WhatIf(run, 1)
    other = lab.outcome(setting.config(run.config))
    assert not torch.equal(getattr(other, changes), getattr(lab.actual, changes))
    assert lab.outcome(Setting().config(run.config)).losses == lab.actual.losses


def test_a_positive_weight_of_zero_leaves_punished_tokens_alone(run):
    lab = WhatIf(run, 1)
    other = lab.outcome(Setting(positive_weight=0.0).config(run.config))
    assert other.mass["positive"] == 0 and other.mass["negative"] == lab.actual.mass["negative"] > 0


def test_settings_replace_what_the_run_had(run):
    config = wb.preset("smoke", {"methods": ["grpo", "clip_higher", "high_entropy_mask", "adaptive_entropy"]})
    changed = Setting(clip_high=0.5, selection=NONE, entropy_coefficient=0.01, baseline="rloo").config(config)
    assert [m["name"] for m in changed.methods] == ["rloo", "entropy_bonus"]
    assert changed.objective.clip_high == 0.5 and changed.objective.clip_low == config.objective.clip_low
    assert set(SELECTIONS) <= set(wb.config.METHODS)


def test_what_is_not_stored_is_named(run, tmp_path):
    config = wb.preset("smoke", {"methods": ["grpo", {"name": "kl_reference", "coefficient": 0.1}]})
    with pytest.raises(ValueError, match="Not recorded: ref_logp"):
        WhatIf(run, 1).outcome(config)
    with pytest.raises(ValueError, match="use at least 2"):
        Setting(selection="kl_cov").config(wb.preset("smoke", {"training.updates_per_rollout": 1}))
