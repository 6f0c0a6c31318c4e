"""Every registered method: neutral parameters change nothing; state survives a checkpoint. And each method's rule."""

import json

import numpy as np
import pytest
import torch

from tests.tiny import tiny_policy
from tests.training.test_objective import config, gradient, rollouts_of
from workbench.config import METHODS
from workbench.methods import Composition
from workbench.methods.base import Method
from workbench.methods.grpo import Grpo
from workbench.methods.pos_adv_reweight import PosAdvReweight
from workbench.tables import Rollouts, Table

NEUTRAL = {"kl_reference": {"coefficient": 0.0}, "pos_adv_reweight": {"initial": 1.0, "delta": 0.0}}
"""Parameters at which a method is bit-identical to the run without it; a baseline replaces another and has none."""


def is_baseline(name):
    return METHODS[name].baseline is not Method.baseline


def test_every_method_that_is_no_baseline_names_its_neutral_parameters():
    assert {name for name in METHODS if not is_baseline(name)} == set(NEUTRAL)


@pytest.mark.parametrize("name", NEUTRAL)
def test_neutral_parameters_are_bit_identical_to_the_run_without(name):
    policy = tiny_policy()
    lists = (["grpo"], ["grpo", {"name": name, **NEUTRAL[name]}])
    without, with_it = (gradient(policy, rollouts_of(policy), config(methods=methods)) for methods in lists)
    assert without[1] == with_it[1]
    assert torch.equal(without[0].tokens.logp, with_it[0].tokens.logp)
    assert all(torch.equal(a, b) for a, b in zip(without[2], with_it[2], strict=True))


@pytest.mark.parametrize("name", METHODS)
def test_state_survives_json_and_a_fresh_object(name):
    method = METHODS[name]()
    for entropy in (0.3, 0.25, 0.1):
        method.observe({"entropy/mean": entropy})
    other = METHODS[name]()
    other.load_state_dict(json.loads(json.dumps(method.state_dict())))
    assert other.measures() == method.measures()
    assert other.state_dict() == method.state_dict()


@pytest.mark.parametrize("name", METHODS)
def test_methods_are_documented(name):
    method = METHODS[name]
    assert method.paper
    assert method.__doc__
    assert all(field.description for field in method.model_fields.values())


def grouped(rewards):
    reward = torch.tensor(rewards, dtype=torch.float32)
    count, size = reward.shape
    group = torch.arange(count).repeat_interleave(size)
    return Rollouts([], Table(group=group, reward=reward.flatten()), Table(sequence=torch.zeros(0, dtype=torch.int64)))


def test_grpo_normalises_within_the_group_with_the_unbiased_std():
    rewards = [[1, 0, 0, 1], [0.5, 2, 1, 0]]
    got = Grpo().baseline(grouped(rewards))
    array = np.array(rewards)
    expected = (array - array.mean(1, keepdims=True)) / (array.std(1, ddof=1, keepdims=True) + 1e-6)
    np.testing.assert_allclose(got.numpy(), expected.flatten(), rtol=1e-5)


@pytest.mark.parametrize("value", [0.0, 1.0, 0.1])
def test_grpo_gives_a_group_of_equal_rewards_no_gradient(value):
    assert Grpo().baseline(grouped([[value] * 3 + [value]])).tolist() == [0, 0, 0, 0]


def test_reweighting_follows_the_papers_rule():
    """λ climbs while entropy is above the target and falls below it, by Δ, within [0, 1] (arXiv 2511.05993)."""
    method, seen = PosAdvReweight(), []
    for entropy in [0.36] * 3 + [0.1] * 5 + [0.5] * 25 + [0.2]:
        seen.append(method.measures()["lambda"])
        method.observe({"entropy/mean": entropy})
    assert seen[:8] == pytest.approx([0, 0.05, 0.1, 0.15, 0.1, 0.05, 0, 0])
    assert seen[-1] == 1.0
    assert method.measures()["lambda"] == 1.0, "at the target itself λ goes up"


def test_reweighting_touches_rewarded_tokens_only():
    weight = PosAdvReweight(initial=0.25).weight(
        Rollouts([], Table(), Table(advantage=torch.tensor([1.0, -1.0, 0.0]))), torch.ones(3)
    )
    assert weight.tolist() == [0.25, 1.0, 1.0]


def test_lists_that_make_no_objective_are_refused():
    with pytest.raises(ValueError, match="each give a baseline"):
        Composition([Grpo(), Grpo()])
    with pytest.raises(ValueError, match="give no baseline"):
        Composition([PosAdvReweight()])


def test_a_name_is_registered_once():
    from workbench.methods import register

    with pytest.raises(ValueError, match="grpo"):
        register(Grpo)
