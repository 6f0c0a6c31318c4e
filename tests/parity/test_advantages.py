"""Our advantages and rollout-correction weights equal those of TRL and verl in fp64."""

import pytest
import torch

from tests.parity.batches import SAMPLES, random_rollouts
from tests.parity.ours import composed, our_advantages
from tests.parity.reference import trl_scored, verl_advantage, verl_correction, verl_gae


@pytest.fixture(params=range(4), ids="seed{}".format)
def rollouts(request):
    return random_rollouts(request.param)[0]


def assert_equal(ours, theirs):
    """1e-9, not less: verl's and TRL's group of equal rewards keeps what rounding left, divided by their epsilon."""
    assert theirs.abs().max() > 0.1
    torch.testing.assert_close(ours, theirs, atol=1e-9, rtol=0)


def test_grpo_is_verls(rollouts):
    assert_equal(our_advantages(["grpo"], rollouts), verl_advantage("grpo", rollouts))


def test_grpo_with_their_epsilon_is_trls(rollouts):
    ours = our_advantages([{"name": "grpo", "epsilon": 1e-4}], rollouts)
    theirs, _ = trl_scored(rollouts, scale_rewards="group")
    assert_equal(ours, rollouts.broadcast_to_tokens(theirs))


def test_dr_grpo_is_both(rollouts):
    ours = our_advantages(["dr_grpo"], rollouts)
    assert_equal(ours, verl_advantage("grpo", rollouts, norm_adv_by_std_in_grpo=False))
    theirs, _ = trl_scored(rollouts, scale_rewards="none")
    assert_equal(ours, rollouts.broadcast_to_tokens(theirs))


@pytest.mark.parametrize("estimator", ["rloo", "rloo_vectorized"])
def test_rloo_is_verls(rollouts, estimator):
    assert_equal(our_advantages(["rloo"], rollouts), verl_advantage(estimator, rollouts))


@pytest.mark.parametrize("method", ["grpo", "dr_grpo", "rloo"])
def test_a_group_of_equal_rewards_gets_exactly_nothing(rollouts, method):
    equal = rollouts.tokens.sequence >= len(rollouts.sequences) - SAMPLES
    assert (our_advantages([method], rollouts)[equal] == 0).all()


@pytest.mark.parametrize("gae_lambda", [0.0, 0.7, 1.0])
@pytest.mark.parametrize("gamma", [1.0, 0.9])
def test_gae_is_verls(rollouts, gamma, gae_lambda):
    """POAD has no discount inside a response; its control discounts every token, as verl does."""
    g = torch.Generator().manual_seed(1)
    values = torch.randn(len(rollouts.tokens), generator=g, dtype=torch.float64)
    rollouts = rollouts.with_tokens(value=values)
    variant = "poad" if gamma == 1 else "naive_token"
    method = {"name": "poad", "variant": variant, "gae_lambda": gae_lambda, "gamma": gamma, "normalise": False}
    assert_equal(our_advantages([method], rollouts), verl_gae(rollouts, gamma, gae_lambda))


def our_weights(rollouts, **parameters):
    _, methods = composed(["grpo", {"name": "tis", **parameters}])
    return methods.weight(rollouts)


@pytest.mark.parametrize("cap", [1.2, 2.0])
@pytest.mark.parametrize("level", ["token", "sequence"])
def test_truncated_importance_weights_are_both(rollouts, level, cap):
    ours = our_weights(rollouts, level=level, cap=cap)
    assert_equal(ours, verl_correction(rollouts, level, cap))
    _, theirs = trl_scored(
        rollouts,
        scale_rewards="group",
        vllm_importance_sampling_mode=f"{level}_truncate",
        vllm_importance_sampling_clip_max=cap,
    )
    assert_equal(ours, theirs)
    assert (ours == cap).any()


def test_truncation_from_below_is_trls(rollouts):
    bounds = {"vllm_importance_sampling_clip_min": 0.7, "vllm_importance_sampling_clip_max": 1.4}
    _, theirs = trl_scored(rollouts, scale_rewards="group", vllm_importance_sampling_mode="token_truncate", **bounds)
    assert_equal(our_weights(rollouts, floor=0.7, cap=1.4), theirs)


@pytest.mark.parametrize("level", ["token", "sequence"])
def test_masks_keep_the_tokens_that_theirs_keep(rollouts, level):
    """What is kept agrees; there it weighs 1 in ours and the ratio itself in TRL and in verl's band."""
    ours = our_weights(rollouts, level=level, mode="mask", floor=0.7, cap=1.4)
    bounds = {"vllm_importance_sampling_clip_min": 0.7, "vllm_importance_sampling_clip_max": 1.4}
    _, trl = trl_scored(rollouts, scale_rewards="group", vllm_importance_sampling_mode=f"{level}_mask", **bounds)
    assert torch.equal(ours, (trl != 0).double())
    assert torch.equal(ours, (verl_correction(rollouts, level, "0.7_1.4") != 0).double())
    assert 0 < ours.mean() < 1
