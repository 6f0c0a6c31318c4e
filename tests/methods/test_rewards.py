"""Random rewards and the reward of relative length."""

import math
from dataclasses import replace

import pytest
import torch

from tests.methods.hand_made import hand_made
from workbench.config import make_config
from workbench.methods import Progress
from workbench.methods.grpo import group_normalised
from workbench.methods.length_reward import LengthReward
from workbench.methods.random_reward import RandomReward

NOW = Progress(seed=5, step=1, steps=10, epoch=1, epochs=1)


def rewards(method, r, step=1):
    method.begin(replace(NOW, step=step))
    return method.reward(r, r.sequences.reward)


MANY = hand_made([[0, 1] * 20] * 1000)
"""40 000 responses."""


@pytest.mark.parametrize("p", [0.0, 0.3, 0.5, 0.7, 1.0])
def test_coin_tosses_come_up_with_the_probability_asked_for(p):
    got = rewards(RandomReward(p=p), MANY)
    assert set(got.tolist()) <= {0.0, 1.0}
    assert got.mean().item() == pytest.approx(p, abs=4 * math.sqrt(p * (1 - p) / 40_000))


def test_gaussian_rewards_have_the_law_asked_for():
    got = rewards(RandomReward(law="gaussian", mean=2.0, deviation=3.0), MANY)
    standard = ((got - 2) / 3).sort().values
    normal = torch.distributions.Normal(0.0, 1.0).cdf(standard)
    steps = torch.arange(1, 40_001) / 40_000
    assert (normal - steps).abs().max() < 1.63 / math.sqrt(40_000), "Kolmogorov-Smirnov at 1 %"


def test_the_most_extreme_draw_is_a_finite_reward(monkeypatch):
    monkeypatch.setattr("workbench.methods.statistics.uniform", lambda key, *salt: torch.zeros(len(key)).double())
    got = rewards(RandomReward(law="gaussian"), hand_made([[1]]))
    assert -9 < got.item() < -8


def test_rewards_do_not_depend_on_the_response_and_change_with_the_step():
    one, other = hand_made([[1, 0, 1, 0]] * 8), hand_made([[0, 1, 1, 1]] * 8, [3] * 32)
    method = RandomReward(law="gaussian")
    assert torch.equal(rewards(method, one), rewards(method, other))
    assert not torch.equal(rewards(method, one), rewards(method, one, step=2))
    order = torch.randperm(32, generator=torch.Generator().manual_seed(0))
    assert torch.equal(rewards(method, one.select_sequences(order)), rewards(method, one)[order])
    assert torch.equal(rewards(RandomReward(law="none"), one), one.sequences.reward)


def test_random_rewards_without_clipping_are_cautioned():
    def cautions(law, updates):
        methods = ["grpo", {"name": "random_reward", "law": law}]
        return make_config({}, {"methods": methods, "training.updates_per_rollout": updates}).cautions()

    assert "never acts" in cautions("bernoulli", 1)[0]
    assert cautions("bernoulli", 4) == cautions("none", 1) == []


CORRECT = [[1, 1, 1, 1], [1, 1, 1, 0], [1, 1, 0, 0], [0, 0, 0, 0]]
LENGTHS = [1, 2, 3, 40, 5, 9, 1, 30, 1, 5, 2, 2, 1, 2, 3, 4]


def naive_length_reward(threshold, base, low, high):
    out = []
    for g, row in enumerate(CORRECT):
        lengths = LENGTHS[4 * g : 4 * g + 4]
        right = [n for n, ok in zip(lengths, row, strict=True) if ok]
        for n, ok in zip(lengths, row, strict=True):
            bonus = 0.0
            if ok and sum(row) / 4 >= threshold:
                bonus = min(high, max(low, (sum(right) / len(right) - n) / base))
            out.append(ok + bonus)
    return out


@pytest.mark.parametrize("threshold", [0.75, 0.5, 1.0, 0.0])
@pytest.mark.parametrize("bounds", [(10.0, -0.5, 1.0), (500.0, -0.5, 0.5), (8.0, -0.1, 0.3)])
def test_short_correct_responses_earn_more_where_the_prompt_is_solved_often(threshold, bounds):
    base, low, high = bounds
    method = LengthReward(threshold=threshold, base=base, low=low, high=high)
    got = rewards(method, hand_made(CORRECT, LENGTHS))
    assert got.tolist() == pytest.approx(naive_length_reward(threshold, base, low, high), rel=1e-12)


def test_a_correct_response_stays_above_every_incorrect_one():
    r = hand_made(CORRECT, LENGTHS)
    got = rewards(LengthReward(threshold=0, base=1.0), r)
    assert got[r.sequences.correct].min() == 0.5
    assert got[~r.sequences.correct].max() == 0.0


def test_in_a_solved_group_the_scale_of_the_bonus_cancels_in_grpo():
    r = hand_made([[1, 1, 1, 1]], [3, 5, 8, 2])
    shaped = [group_normalised(r, rewards(LengthReward(base=b), r), 1e-12) for b in (50.0, 5000.0)]
    torch.testing.assert_close(*shaped, rtol=1e-6, atol=0)
    assert shaped[0].abs().min() > 0.1


def test_an_infinite_base_and_equal_lengths_leave_the_rewards():
    r = hand_made(CORRECT, LENGTHS)
    assert rewards(LengthReward(base=math.inf), r) is r.sequences.reward
    even = hand_made(CORRECT)
    assert torch.equal(rewards(LengthReward(), even), even.sequences.reward)


def test_a_bonus_that_can_put_correct_below_incorrect_is_cautioned():
    def cautions(low):
        return make_config({}, {"methods": ["grpo", {"name": "length_reward", "low": low}]}).cautions()

    assert "no more than an incorrect" in cautions(-1.0)[0]
    assert cautions(-0.5) == []
