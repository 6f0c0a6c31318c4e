"""POAD and its naive control against loops over tokens; what a discount per token does to early values."""

import pytest
import torch

from workbench.config import ConfigError, make_config
from workbench.methods.critics import discounted_sums, next_values
from workbench.methods.poad import Poad
from workbench.tables import Rollouts, Table, token_index

LENGTHS, REWARDS = [1, 4, 2, 7], [1.0, 0.0, -0.5, 1.0]


def rollouts_of(lengths, rewards, values=None, seed=0):
    length = torch.tensor(lengths)
    sequence, position = token_index(length)
    draw = torch.randn(len(sequence), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    reward = torch.tensor(rewards, dtype=torch.float64)
    sequences = Table(length=length, reward=reward, advantage=reward)
    value = draw if values is None else torch.tensor(values, dtype=torch.float64)
    return Rollouts([], sequences, Table(sequence=sequence, position=position, value=value))


def gae(values, reward, lam, gamma):
    """Advantages of one response, by the recursion as it is written."""
    out, later = [0.0] * len(values), 0.0
    for t in reversed(range(len(values))):
        last = t == len(values) - 1
        delta = (reward if last else gamma * values[t + 1]) - values[t]
        later = delta + (0.0 if last else gamma * lam * later)
        out[t] = later
    return out


@pytest.mark.parametrize("lam", [0.0, 0.7, 1.0])
@pytest.mark.parametrize(("variant", "gamma"), [("poad", 1.0), ("naive_token", 0.8)])
def test_advantages_and_targets_equal_the_loop(variant, gamma, lam):
    r = rollouts_of(LENGTHS, REWARDS)
    method = Poad(variant=variant, gamma=0.8, gae_lambda=lam, normalise=False)
    values = [part.tolist() for part in r.tokens.value.split(LENGTHS)]
    expected = [a for v, reward in zip(values, REWARDS, strict=True) for a in gae(v, reward, lam, gamma)]
    expected = torch.tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(method.advantage(r, None), expected)
    torch.testing.assert_close(method.critic_target(r), expected + r.tokens.value)


def test_with_lambda_one_the_target_is_the_reward_and_the_advantage_what_the_value_missed():
    r = rollouts_of(LENGTHS, REWARDS)
    method = Poad(gae_lambda=1.0, normalise=False)
    reward = r.broadcast_to_tokens(r.sequences.reward)
    torch.testing.assert_close(method.critic_target(r), reward)
    torch.testing.assert_close(method.advantage(r, None), reward - r.tokens.value)


@pytest.mark.parametrize("length", [1, 5, 20])
def test_a_discount_per_token_shrinks_the_first_value_with_length_and_poad_does_not(length):
    """Fixed point of the critic's regression: each sweep sets V to its target; R = 1 at the end."""
    for variant, expected in (("poad", 1.0), ("naive_token", 0.9 ** (length - 1))):
        method, r = Poad(variant=variant, gamma=0.9), rollouts_of([length], [1.0])
        for _ in range(length):
            r = r.with_tokens(value=method.critic_target(r))
        assert r.tokens.value[0].item() == pytest.approx(expected)


def test_without_a_discount_the_control_is_poad():
    r = rollouts_of(LENGTHS, REWARDS)
    advantages = [Poad(variant=v, gamma=1.0).advantage(r, None) for v in ("poad", "naive_token")]
    assert torch.equal(*advantages)


def test_normalised_advantages_have_mean_zero_and_spread_one():
    r = rollouts_of(LENGTHS, REWARDS)
    got = Poad().advantage(r, None)
    assert got.mean().abs() < 1e-12
    assert got.std(correction=0).item() == pytest.approx(1.0, abs=1e-6)
    raw = Poad(normalise=False).advantage(r, None)
    torch.testing.assert_close(got, (raw - raw.mean()) / raw.std(correction=0), rtol=1e-6, atol=1e-9)


def test_a_critic_that_is_never_surprised_gives_no_advantage():
    r = rollouts_of([1, 3], [0.5, 0.5], values=[0.5] * 4)
    method = Poad()
    assert method.advantage(r, None).eq(0).all()
    assert method.measures() == {"root_value": 0.5, "advantage_std": 0.0, "explained_variance": 0.0}


def test_explained_variance_is_the_share_of_the_rewards_the_values_foresee():
    method = Poad()
    method.advantage(rollouts_of([2, 2], [1.0, 0.0], values=[1.0, 1.0, 0.0, 0.0]), None)
    assert method.measures()["explained_variance"] == pytest.approx(1.0)
    method.advantage(rollouts_of([2, 2], [1.0, 0.0], values=[0.75, 0.75, 0.25, 0.25]), None)
    assert method.measures()["explained_variance"] == pytest.approx(0.75)


def test_next_values_stay_within_their_sequence():
    r = rollouts_of([2, 1, 3], [10.0, 20.0, 30.0], values=[1, 2, 3, 4, 5, 6])
    assert next_values(r, r.tokens.value, r.sequences.reward).tolist() == [2, 10, 20, 5, 6, 30]


def test_discounted_sums_leave_what_they_are_given():
    r = rollouts_of([3, 1], [0.0, 0.0], values=[1, 2, 4, 8])
    assert discounted_sums(r, r.tokens.value, 0.5).tolist() == [3, 4, 4, 8]
    assert r.tokens.value.tolist() == [1, 2, 4, 8]


def config(*methods):
    return make_config({}, {"methods": list(methods), "evaluation.sets": []})


def test_settings_that_change_nothing_are_said():
    assert config("poad").cautions() == []
    assert config({"name": "poad", "variant": "naive_token"}).cautions() == []
    assert "naive_token" in config({"name": "poad", "gamma": 0.5}).cautions()[0]
    assert "is variant 'poad'" in config({"name": "poad", "variant": "naive_token", "gamma": 1.0}).cautions()[0]


def test_a_method_that_shapes_advantages_must_stand_behind():
    config("poad", "entropy_adv")
    with pytest.raises(ConfigError, match="put 'poad' first"):
        config("entropy_adv", "poad")


def test_two_critics_are_refused():
    with pytest.raises(ConfigError, match="keep one of them"):
        config("poad", "etpo")
