"""Sequence advantages of the group baselines against numpy, on hand-made groups."""

import numpy as np
import pytest
import torch

from workbench.config import ConfigError, make_config
from workbench.methods.dr_grpo import DrGrpo
from workbench.methods.grpo import Grpo
from workbench.methods.reinforce import Reinforce
from workbench.methods.rloo import Rloo
from workbench.tables import Rollouts, Table

REWARDS = [[1, 0, 0, 1], [0.5, 2, 1, 0]]


def grouped(rewards, correct=None):
    reward = torch.tensor(rewards, dtype=torch.float64)
    count, size = reward.shape
    group = torch.arange(count).repeat_interleave(size)
    correct = reward.flatten() > 0.5 if correct is None else torch.tensor(correct)
    return Rollouts([], Table(group=group, reward=reward.flatten(), correct=correct), Table())


def test_grpo_normalises_within_the_group_with_the_unbiased_std():
    array = np.array(REWARDS)
    expected = (array - array.mean(1, keepdims=True)) / (array.std(1, ddof=1, keepdims=True) + 1e-6)
    np.testing.assert_allclose(Grpo().baseline(grouped(REWARDS)).numpy(), expected.flatten(), rtol=1e-12)


def test_dr_grpo_centres_without_dividing():
    array = np.array(REWARDS)
    np.testing.assert_allclose(
        DrGrpo().baseline(grouped(REWARDS)).numpy(), (array - array.mean(1, keepdims=True)).flatten(), rtol=1e-12
    )


def test_rloo_subtracts_the_mean_of_the_others():
    expected = [r - (sum(group) - r) / (len(group) - 1) for group in REWARDS for r in group]
    np.testing.assert_allclose(Rloo().baseline(grouped(REWARDS)).numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize("method", [Grpo(), DrGrpo(), Rloo()], ids=lambda m: m.name)
@pytest.mark.parametrize("value", [0.0, 1.0, 0.1])
def test_a_group_of_equal_rewards_gives_no_gradient(method, value):
    assert method.baseline(grouped([[value] * 3, [value] * 3])).tolist() == [0] * 6


@pytest.mark.parametrize("name", ["grpo", "dr_grpo", "rloo"])
def test_groups_of_one_are_refused(name):
    with pytest.raises(ConfigError, match=f"rollout.samples is 1, but {name}"):
        make_config({"methods": [name], "rollout": {"samples": 1}})


@pytest.mark.parametrize(("positive", "negative", "kept"), [(1, 0, [0, 1]), (0, 1, [2, 3]), (0.1, 1, [0, 1, 2, 3])])
def test_psr_nsr_and_w_reinforce_weigh_by_correctness_and_drop_what_counts_nothing(positive, negative, kept):
    method = Reinforce(positive=positive, negative=negative)
    rollouts = grouped([[1, 1, 0, 0]])
    advantage = method.baseline(rollouts)
    assert advantage.tolist() == [positive, positive, -negative, -negative]
    keep = method.keep(rollouts.with_sequences(advantage=advantage), torch.ones(4, dtype=torch.bool))
    assert keep.nonzero().squeeze(1).tolist() == kept


def test_reinforce_gives_a_group_of_equal_rewards_a_gradient():
    assert Reinforce().baseline(grouped([[1, 1, 1]])).tolist() == [1, 1, 1]


def test_reinforce_that_trains_nothing_is_refused():
    with pytest.raises(ConfigError, match="both 0"):
        make_config({"methods": [{"name": "reinforce", "positive": 0, "negative": 0}]})


def test_dr_grpo_without_its_denominator_is_cautioned():
    assert "denominator" in make_config({"methods": ["dr_grpo"]}).cautions()[0]
    assert not make_config({"methods": ["dr_grpo"]}, {"objective.denominator": "constant"}).cautions()
