"""One rollout step on the bundled policy."""

import pytest
import torch

import workbench as wb
import workbench.training.trainer as module
from workbench.metrics import ALL_METRICS
from workbench.training.trainer import Trainer
from workbench.training.update import score_in_parts

ROUNDING = {"atol": 3e-5, "rtol": 1e-5}
"""Cached decoding and the packed forward add in different orders; logits of size 30 carry 1e-5 of fp32 rounding."""
DROPS = {"name": "dynamic_sampling", "max_rounds": 1}
"""Groups without differing rewards leave the update."""
ALONE = {"training.updates_per_rollout": 1, "training.old_logp": "trainer"}


def trainer(**overrides):
    return Trainer(wb.preset("smoke", {"rollout.samples": 8} | overrides))


def test_the_first_update_is_on_policy_and_later_ones_are_not():
    one = trainer(**{"training.updates_per_rollout": 1}).step(1)
    ratio = (one.rollouts.tokens.logp - one.rollouts.tokens.old_logp).exp()
    torch.testing.assert_close(ratio, torch.ones_like(ratio), **ROUNDING)
    assert one.metrics["clip/low_fraction"] == one.metrics["clip/high_fraction"] == 0
    four = trainer(**{"training.updates_per_rollout": 4, "optimiser.learning_rate": 1e-2}).step(1)
    assert four.metrics["kl/old"] > 1e-4
    assert four.metrics["update/count"] == 4


def test_a_scoring_pass_gives_the_samplers_log_probs():
    by_sampler, by_trainer = (
        trainer(**{"training.old_logp": who}).step(1).rollouts.tokens for who in ("rollout", "trainer")
    )
    torch.testing.assert_close(by_sampler.old_logp, by_trainer.old_logp, **ROUNDING)
    torch.testing.assert_close(by_sampler.entropy, by_trainer.entropy, **ROUNDING)


def test_with_the_trainers_own_log_probs_the_first_ratio_is_exactly_one():
    tokens = trainer(**{"training.updates_per_rollout": 1, "training.old_logp": "trainer"}).step(1).rollouts.tokens
    assert torch.equal(tokens.logp, tokens.old_logp)


@pytest.mark.parametrize("further", [[], [{"name": "sign_mask", "train": "nonpositive"}, "clip_cov"], [DROPS]])
def test_one_update_supplies_the_log_probs_a_scoring_pass_would(monkeypatch, further):
    """Of the tokens that are trained; the responses that the last list drops are scored by themselves."""
    of_update = trainer(**ALONE | {"methods": ["grpo", *further]})
    assert not of_update.scores_first
    calls = []
    monkeypatch.setattr(module, "score_in_parts", lambda *a, **k: calls.append(a[1]) or score_in_parts(*a, **k))
    found = of_update.step(1)
    scored = sum(len(rollouts.sequences) for rollouts in calls)
    assert (scored > 0) == (further == [DROPS])
    assert scored == (found.rollouts.tokens.update < 0).any() * (found.rollouts.sequences.advantage == 0).sum()
    monkeypatch.setattr(Trainer, "_scores_first", lambda self: True)
    by_pass = trainer(**ALONE | {"methods": ["grpo", *further]}).step(1)
    assert found.metrics.keys() == by_pass.metrics.keys() and set(found.rollouts.tokens) == set(by_pass.rollouts.tokens)
    for name, value in found.metrics.items():
        assert value == pytest.approx(by_pass.metrics[name], rel=1e-3, abs=1e-5, nan_ok=True), name
    for name in ("old_logp", "entropy", "expected_discriminator", "rollout_logp", "logp", "ratio", "weight"):
        torch.testing.assert_close(
            found.rollouts.tokens[name], by_pass.rollouts.tokens[name], **ROUNDING, equal_nan=True
        )


@pytest.mark.parametrize(
    "how", [{"training.updates_per_rollout": 2}, {"methods": ["grpo", "tis"]}, {"methods": ["poad"]}]
)
def test_a_scoring_pass_is_made_where_an_update_would_come_too_late(how):
    assert trainer(**ALONE | how).scores_first and not trainer(**ALONE).scores_first


def test_entropy_agrees_with_the_surprise_of_the_samples():
    """−E[log π] over samples estimates the exact entropy: within four standard errors, or sampler and head disagree."""
    tokens = trainer(**{"rollout.prompts": 32, "rollout.samples": 16}).step(1).rollouts.tokens
    excess = -tokens.rollout_logp - tokens.entropy
    assert abs(excess.mean()) < 4 * excess.std() / len(excess) ** 0.5


def test_an_epoch_visits_every_prompt_once_in_a_new_order_each_time():
    t = trainer(**{"task.train_size": 32})
    t.collector.begin(1)
    epochs = [[i for _ in range(4) for i in t.collector.walk.take(8)] for _ in range(2)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(32))
    assert epochs[0] != epochs[1]


def test_reward_rises_in_the_first_steps_of_the_cpu_preset():
    t = Trainer(wb.preset("cpu", {"task.train_size": 512}))
    rewards = [t.step(k).metrics["reward/mean"] for k in range(1, 11)]
    assert sum(rewards[-3:]) > sum(rewards[:3])


@pytest.mark.parametrize("kl", [0.0, 0.5])
def test_the_reference_is_loaded_only_for_a_penalty(kl):
    t = trainer(methods=["grpo", {"name": "kl_reference", "coefficient": kl}])
    result = t.step(1)
    assert (t.reference is not None) == ("ref_logp" in result.rollouts.tokens) == (kl > 0)


def test_temperature_is_applied_to_sampling_and_scoring_alike():
    hot = trainer(**{"rollout.temperature": 1.7, "training.updates_per_rollout": 1}).step(1)
    tokens = hot.rollouts.tokens
    torch.testing.assert_close(tokens.logp, tokens.rollout_logp, **ROUNDING)
    assert hot.metrics["entropy/mean"] > trainer().step(1).metrics["entropy/mean"]


def test_bfloat16_products_stay_close_to_float32():
    full, half = (trainer(**{"policy.precision": p, "training.old_logp": "trainer"}) for p in ("float32", "bfloat16"))
    rollouts = full.step(1).rollouts
    fresh = trainer()
    exact, rough = (score_in_parts(t.policy, rollouts, 4096).logp for t in (fresh, half))
    assert (exact - rough).abs().mean() < 0.02


def test_everything_a_step_reports_is_documented():
    known = {metric.name for metric in ALL_METRICS} | {"step"}
    for methods in (["grpo", "entropic", "clip_v"], ["poad"]):
        reported = trainer(methods=methods).step(1).metrics
        assert {name for name in reported if not name.startswith("method/")} <= known
