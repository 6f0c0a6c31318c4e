"""Our loss and its gradient by the log-probs equal those of TRL and verl in fp64, where all of them mean the same."""

import math

import pytest
import torch

from tests.parity.batches import LONGEST, random_rollouts
from tests.parity.ours import ONE_MICRO_BATCH, our_loss
from tests.parity.reference import (
    trl_high_entropy_mask,
    trl_loss,
    trl_trainer_loss,
    verl_correction,
    verl_kl_loss,
    verl_loss,
)

TOLERANCE = 1e-12
VERL_BOUNDS, TRL_BOUNDS = {"clip_ratio_low": 0.2, "clip_ratio_high": 0.28}, {"epsilon_low": 0.2, "epsilon_high": 0.28}
BOUNDS = {"objective.clip_low": 0.2, "objective.clip_high": 0.28}
# our denominator: verl's loss_agg_mode, TRL's loss_type
DENOMINATORS = {
    "tokens": ("token-mean", "dapo"),
    "sequences": ("seq-mean-token-mean", "grpo"),
    "constant": ("seq-mean-token-sum-norm", "dr_grpo"),
}


def assert_equal(ours, reference):
    value, by_logp = reference
    assert abs(ours.value - value) <= TOLERANCE
    assert (ours.by_logp - by_logp).abs().max() <= TOLERANCE
    assert by_logp.abs().max() > 1e-4, "the case must have a gradient"


def verl(name, rollouts, logp, denominator="tokens", **options):
    """verl's loss under our denominator, less the 1e-8 that its sequence means add to lengths (`true_lengths`)."""
    mode = DENOMINATORS[denominator][0]
    options = {"weights": true_lengths(rollouts) if denominator == "sequences" else None, **options}
    return verl_loss(name, rollouts, logp, mode, horizon=LONGEST, **options)


def true_lengths(rollouts):
    """Token weights [N] that undo the 1e-8 which verl adds to a response's length when it takes its mean."""
    length = rollouts.sequences.length.double()
    return rollouts.broadcast_to_tokens((length + 1e-8) / length)


def both_trl(denominator, rollouts, logp, **options):
    """TRL's loss of its fused head and of its trainer."""
    loss_type = DENOMINATORS[denominator][1]
    for trl in (trl_loss, trl_trainer_loss):
        yield trl(loss_type, rollouts, logp, max_completion_length=LONGEST, **options)[:2]


@pytest.fixture(params=range(4), ids="seed{}".format)
def batch(request):
    return random_rollouts(request.param)


@pytest.mark.parametrize("budget", [ONE_MICRO_BATCH, 64], ids=["whole", "micro_batches"])
@pytest.mark.parametrize("denominator", DENOMINATORS)
def test_ppo_clip(batch, denominator, budget):
    rollouts, logp = batch
    ours = our_loss(["grpo"], rollouts, logp, {**BOUNDS, "objective.denominator": denominator}, budget)
    assert_equal(ours, verl("vanilla", rollouts, logp, denominator, **VERL_BOUNDS))
    for trl in both_trl(denominator, rollouts, logp, **TRL_BOUNDS):
        assert_equal(ours, trl)


@pytest.mark.parametrize("c", [1.5, 3.0])
def test_dual_clip(batch, c):
    """TRL's two-sided `delta` caps the ratio of every token, which above 1 + ε_high only matters where A < 0."""
    rollouts, logp = batch
    ours = our_loss(["grpo", {"name": "dual_clip", "c": c}], rollouts, logp, BOUNDS)
    assert_equal(ours, verl("vanilla", rollouts, logp, clip_ratio_c=c, **VERL_BOUNDS))
    for trl in both_trl("tokens", rollouts, logp, delta=c, **TRL_BOUNDS):
        assert_equal(ours, trl)
    assert ours.value < our_loss(["grpo"], rollouts, logp, BOUNDS).value, "the second bound must act"


@pytest.mark.parametrize("denominator", DENOMINATORS)
def test_gspo(batch, denominator):
    rollouts, logp = batch
    method = {"name": "gspo", "low": 0.03, "high": 0.05}
    ours = our_loss(["grpo", method], rollouts, logp, {"objective.denominator": denominator})
    options = {"clip_ratio_low": 0.03, "clip_ratio_high": 0.05}
    assert_equal(ours, verl("gspo", rollouts, logp, denominator, **options))
    options = {"epsilon_low": 0.03, "epsilon_high": 0.05, "importance_sampling_level": "sequence"}
    for trl in both_trl(denominator, rollouts, logp, **options):
        # (sequence, 1) losses times the mask: one value per response, as in ours, under every denominator
        assert_equal(ours, trl)


def test_cispo_with_verls_two_bounds(batch):
    rollouts, logp = batch
    ours = our_loss(["grpo", {"name": "cispo", "low": 0.2, "high": 0.28}], rollouts, logp)
    assert_equal(ours, verl("cispo", rollouts, logp, **VERL_BOUNDS))


@pytest.mark.parametrize("high", [0.28, 1.5])
def test_cispo_with_trls_single_cap(batch, high):
    rollouts, logp = batch
    ours = our_loss(["grpo", {"name": "cispo", "low": 1.0, "high": high}], rollouts, logp)
    assert_equal(ours, trl_loss("cispo", rollouts, logp, epsilon_high=1 + high))
    assert_equal(ours, trl_trainer_loss("cispo", rollouts, logp, epsilon_high=1 + high)[:2])
    assert_equal(ours, verl("cispo", rollouts, logp, clip_ratio_low=1.0, clip_ratio_high=high))


@pytest.mark.parametrize("budget", [ONE_MICRO_BATCH, 64], ids=["whole", "micro_batches"])
@pytest.mark.parametrize("fraction", [0.1, 1e-4])
def test_kl_cov_with_any_micro_batches_is_verls_with_one(batch, fraction, budget):
    rollouts, logp = batch
    method = {"name": "kl_cov", "fraction": fraction, "coefficient": 0.7}
    ours = our_loss(["grpo", method], rollouts, logp, budget=budget)
    assert_equal(ours, verl("kl_cov", rollouts, logp, kl_cov_ratio=fraction, ppo_kl_coef=0.7))
    assert ours.tokens.kl_cov_selected.sum() == max(1, int(fraction * len(logp)))


@pytest.mark.parametrize("budget", [ONE_MICRO_BATCH, 64], ids=["whole", "micro_batches"])
def test_clip_cov_of_all_candidates(batch, budget):
    """With a fraction of 1 both take every candidate, so that chance plays no part."""
    rollouts, logp = batch
    method = {"name": "clip_cov", "fraction": 1.0, "low": 0.3, "high": 1.5}
    ours = our_loss(["grpo", method], rollouts, logp, BOUNDS, budget)
    options = {"clip_cov_ratio": 1.0, "clip_cov_lb": 0.3, "clip_cov_ub": 1.5}
    assert_equal(ours, verl("clip_cov", rollouts, logp, **options, **VERL_BOUNDS))
    assert 0 < (ours.tokens.weight == 0).sum() < len(logp) / 2


def test_clip_cov_draws_as_many_and_from_the_same_candidates(batch):
    rollouts, logp = batch
    fraction, band = 0.02, {"low": 0.3, "high": 1.5}
    chosen = our_loss(
        ["grpo", {"name": "clip_cov", "fraction": fraction, **band}], rollouts, logp, BOUNDS
    ).tokens.weight
    options = {"clip_cov_lb": 0.3, "clip_cov_ub": 1.5, **VERL_BOUNDS}
    candidates = our_loss(["grpo", {"name": "clip_cov", "fraction": 1.0, **band}], rollouts, logp, BOUNDS).tokens.weight
    _, plain = verl("vanilla", rollouts, logp, **VERL_BOUNDS)
    _, drawn = verl("clip_cov", rollouts, logp, clip_cov_ratio=fraction, **options)
    acting = rollouts.tokens.advantage != 0
    assert (chosen == 0).sum() == int(fraction * len(logp))
    assert (candidates[chosen == 0] == 0).all()
    theirs = (drawn == 0) & (plain != 0)
    assert (candidates[theirs] == 0).all()
    assert theirs.sum() + (candidates[~acting] == 0).sum() >= int(fraction * len(logp))


@pytest.mark.parametrize("denominator", ["tokens", "sequences"])
@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
def test_kl_penalty(batch, estimator, denominator):
    rollouts, logp = batch
    method = {"name": "kl_reference", "coefficient": 0.5, "estimator": estimator}
    ours = our_loss(["grpo", method], rollouts, logp, {**BOUNDS, "objective.denominator": denominator})
    policy = verl("vanilla", rollouts, logp, denominator, **VERL_BOUNDS)
    weights = true_lengths(rollouts) if denominator == "sequences" else None
    penalty = verl_kl_loss(estimator, rollouts, logp, DENOMINATORS[denominator][0], weights)
    assert_equal(ours, (policy[0] + 0.5 * penalty[0], policy[1] + 0.5 * penalty[1]))
    if estimator == "k3":
        for trl in both_trl(denominator, rollouts, logp, beta=0.5, **TRL_BOUNDS):
            assert_equal(ours, trl)


@pytest.mark.parametrize("level", ["token", "sequence"])
def test_loss_with_truncated_importance_weights(batch, level):
    rollouts, logp = batch
    ours = our_loss(["grpo", {"name": "tis", "level": level, "cap": 1.3}], rollouts, logp, BOUNDS)
    weights = verl_correction(rollouts, level, 1.3)
    assert_equal(ours, verl("vanilla", rollouts, logp, weights=weights, **VERL_BOUNDS))
    assert_equal(ours, trl_loss("dapo", rollouts, logp, vllm_is_ratio=weights, **TRL_BOUNDS))


@pytest.mark.parametrize("coefficient", [0.01, -0.3])
def test_entropy_bonus(batch, coefficient):
    rollouts, logp = batch
    ours = our_loss(["grpo", {"name": "entropy_bonus", "coefficient": coefficient}], rollouts, logp, BOUNDS)
    value, by_logp, by_entropy = trl_trainer_loss("dapo", rollouts, logp, entropy_coef=coefficient, **TRL_BOUNDS)
    assert_equal(ours, (value, by_logp))
    torch.testing.assert_close(ours.by_entropy, by_entropy, atol=TOLERANCE, rtol=0)
    assert (by_entropy != 0).all()


@pytest.mark.parametrize("fraction", [0.2, 0.5])
def test_high_entropy_mask_selects_trls_tokens(batch, fraction):
    """TRL keeps the tokens that leave the loss in its denominator: its loss is ours times the share that stays."""
    rollouts, logp = batch
    ours = our_loss(["grpo", {"name": "high_entropy_mask", "fraction": fraction}], rollouts, logp, BOUNDS)
    kept = ours.tokens.mask
    assert torch.equal(kept, trl_high_entropy_mask(rollouts, rollouts.tokens.entropy, fraction))
    options = {"top_entropy_quantile": fraction, **TRL_BOUNDS}
    value, by_logp, _ = trl_trainer_loss("dapo", rollouts, logp, **options)
    share = kept.double().mean().item()
    assert share < 1
    assert_equal(ours, (value / share, by_logp / share))


def test_without_clipping_all_losses_are_the_importance_weighted_policy_gradient(batch):
    rollouts, logp = batch
    ours = our_loss(["grpo", "clip_free"], rollouts, logp)
    assert_equal(ours, verl("vanilla", rollouts, logp, clip_ratio_low=1.0, clip_ratio_high=math.inf))
    assert_equal(ours, trl_loss("dapo", rollouts, logp, epsilon_low=1.0, epsilon_high=math.inf))
