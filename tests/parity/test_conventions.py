"""What CONVENTIONS.md says of TRL and verl where they differ from us, shown on numbers."""

import math

import pytest
import torch

from tests.parity.batches import LONGEST, random_rollouts, table_of_mask
from tests.parity.ours import our_advantages, our_loss
from tests.parity.reference import (
    trl_high_entropy_mask,
    trl_loss,
    trl_scored,
    verl_advantage,
    verl_kl_loss,
    verl_loss,
)
from workbench.methods.kl_reference import kl_estimate
from workbench.training.objective import token_share

BOUNDS = {"objective.clip_low": 0.2, "objective.clip_high": 0.28}
VERL_BOUNDS, TRL_BOUNDS = {"clip_ratio_low": 0.2, "clip_ratio_high": 0.28}, {"epsilon_low": 0.2, "epsilon_high": 0.28}


def one_token(old_logp, logp, advantage):
    """One response of one token, of which everything is said."""
    rollouts = table_of_mask(torch.ones(1, 1), torch.zeros(1, dtype=torch.int64), torch.ones(1, dtype=torch.float64))
    given = {"old_logp": old_logp, "ref_logp": old_logp, "advantage": advantage}
    columns = {name: torch.tensor([value], dtype=torch.float64) for name, value in given.items()}
    rollouts = rollouts.with_tokens(**columns).with_sequences(advantage=columns["advantage"])
    return rollouts, torch.tensor([logp], dtype=torch.float64)


def test_the_dual_clip_of_verl_is_on_by_default():
    rollouts, logp = one_token(-3.0, -0.5, -1.0)
    ratio = torch.tensor(2.5).double().exp().item()
    assert verl_loss("vanilla", rollouts, logp, clip_ratio_c=3.0)[0] == pytest.approx(3.0)
    assert verl_loss("vanilla", rollouts, logp)[0] == pytest.approx(ratio)
    assert trl_loss("dapo", rollouts, logp)[0] == pytest.approx(ratio)


def test_verl_stops_the_log_ratio_at_20_and_its_gradient_with_it():
    rollouts, logp = one_token(-30.0, -1.0, -1.0)
    value, gradient = verl_loss("vanilla", rollouts, logp, clip_ratio_c=1e30)
    assert value == pytest.approx(torch.tensor(20.0).double().exp().item())
    assert gradient.item() == 0
    value, gradient = trl_loss("dapo", rollouts, logp)
    assert value == gradient.item() == pytest.approx(torch.tensor(29.0).double().exp().item())


def test_the_k3_of_verl_stops_at_10():
    rollouts, logp = one_token(-1.0, -5.0, 1.0)
    value, gradient = verl_kl_loss("k3", rollouts, logp)
    assert (value, gradient.item()) == (10.0, 0.0)
    assert kl_estimate(logp, rollouts.tokens.ref_logp, "k3").item() == pytest.approx(torch.tensor(4.0).exp().item() - 5)


def test_sequence_means_of_verl_are_short_by_1e_8_of_a_token():
    rollouts, logp = random_rollouts(1)
    theirs, _ = verl_loss("vanilla", rollouts, logp, "seq-mean-token-mean", **VERL_BOUNDS)
    ours = our_loss(["grpo"], rollouts, logp, {**BOUNDS, "objective.denominator": "sequences"}).value
    assert 1e-10 < abs(theirs - ours) < 1e-8


def test_sequences_without_a_token_count_differently():
    """verl leaves them out of every count, TRL out of none; ours leaves them out of `sequences`, not of `constant`."""
    rollouts, _ = random_rollouts(0)
    empty = rollouts.tokens.sequence % 4 == 0
    rollouts = rollouts.with_tokens(mask=~empty)
    shares = {name: token_share(rollouts, name, LONGEST).sum().item() for name in ("sequences", "constant")}
    left, count = 15, 20
    ones = one_per_token(rollouts)
    assert shares["sequences"] == pytest.approx(1)
    assert -ones("verl", "seq-mean-token-mean") == pytest.approx(1)
    assert -ones("trl", "grpo") == pytest.approx(left / count)
    assert -ones("verl", "seq-mean-token-sum-norm") == pytest.approx(shares["constant"] * count / left)
    assert -ones("trl", "dr_grpo") == pytest.approx(shares["constant"])


def one_per_token(rollouts):
    """The references' loss when each token's is −1: ratio 1, advantage 1."""
    advantage = torch.ones(len(rollouts.sequences), dtype=torch.float64)
    rollouts = rollouts.with_sequences(advantage=advantage).with_tokens(
        advantage=rollouts.broadcast_to_tokens(advantage)
    )

    def loss(whose, kind):
        if whose == "verl":
            return verl_loss("vanilla", rollouts, rollouts.tokens.old_logp, kind, horizon=LONGEST)[0]
        return trl_loss(kind, rollouts, rollouts.tokens.old_logp, max_completion_length=LONGEST)[0]

    return loss


def test_the_constant_of_verl_is_the_width_of_the_batch_unless_set():
    rollouts, logp = random_rollouts(0)
    width = int(rollouts.sequences.length.max())
    default, _ = verl_loss("vanilla", rollouts, logp, "seq-mean-token-sum-norm")
    fixed, _ = verl_loss("vanilla", rollouts, logp, "seq-mean-token-sum-norm", horizon=2 * width)
    assert default == pytest.approx(2 * fixed, rel=1e-12)


@pytest.mark.parametrize("size", [8, 16])
def test_equal_rewards_in_fp32_leave_a_rounding_error_in_verl_that_its_epsilon_blows_up(size):
    group, reward = torch.zeros(size, dtype=torch.int64), torch.full((size,), 0.7)
    rollouts = table_of_mask(torch.ones(size, 1), group, reward)
    assert verl_advantage("grpo", rollouts).abs().max() > 0.01
    assert (our_advantages(["grpo"], rollouts) == 0).all()


def test_a_response_alone_in_its_group_has_its_reward_as_advantage_in_verl_and_none_in_ours():
    rewards = torch.tensor([1.0, 0.5, 0.0])
    rollouts = table_of_mask(torch.ones(3, 1), torch.arange(3), rewards)
    for estimator in ("grpo", "rloo"):
        torch.testing.assert_close(verl_advantage(estimator, rollouts).float(), rewards, atol=1e-5, rtol=0)
        assert (our_advantages([estimator], rollouts) == 0).all()


def test_the_advantage_of_trl_divides_by_the_spread_plus_1e_4():
    rollouts, _ = random_rollouts(0)
    trl, _ = trl_scored(rollouts, scale_rewards="group")
    ours = our_advantages(["grpo"], rollouts)
    spread = rollouts.group_std(rollouts.sequences.reward)
    factor = rollouts.broadcast_to_tokens((spread + 1e-6) / (spread + 1e-4))
    torch.testing.assert_close(rollouts.broadcast_to_tokens(trl), ours * factor, atol=1e-9, rtol=0)


@pytest.mark.parametrize("seed", range(4))
def test_the_quantile_of_trl_may_keep_one_token_fewer(seed):
    """⌊ρ·(N − 1)⌋ + 1 tokens lie at or above the (1 − ρ) quantile; we keep ⌈ρ·N⌉."""
    rollouts, logp = random_rollouts(seed)
    count, fraction = len(logp), 0.8
    theirs = trl_high_entropy_mask(rollouts, rollouts.tokens.entropy, fraction)
    ours = our_loss(["grpo", {"name": "high_entropy_mask", "fraction": fraction}], rollouts, logp).tokens.mask
    assert theirs.sum() == (8 * (count - 1)) // 10 + 1
    assert ours.sum() == -(-8 * count // 10)
    assert not (theirs & ~ours).any()


def test_rollout_weights_of_verl_multiply_the_penalty_of_kl_cov_too():
    rollouts, logp = random_rollouts(0)
    rollouts = rollouts.with_tokens(rollout_logp=rollouts.tokens.old_logp + math.log(2))  # weights of 1/2
    weights = torch.full_like(logp, 0.5)
    theirs, _ = verl_loss("kl_cov", rollouts, logp, weights=weights, kl_cov_ratio=0.1, ppo_kl_coef=1.0)
    ours = our_loss(["grpo", "tis", {"name": "kl_cov", "fraction": 0.1, "coefficient": 1.0}], rollouts, logp)
    moved = (logp - rollouts.tokens.old_logp).abs()[ours.tokens.kl_cov_selected].sum().item() / len(logp)
    assert moved > 0.01
    assert ours.value == pytest.approx(theirs + 0.5 * moved, abs=1e-12)
