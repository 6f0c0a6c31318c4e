"""DAPO and its parts: dynamic sampling over rounds, the penalty on long responses, the bundle."""

import pytest
import torch

import workbench as wb
from tests.methods.made_up import LONGEST, PROGRESS
from tests.methods.test_baselines import grouped
from workbench.config import ConfigError, make_config
from workbench.methods.dapo import DynamicSampling, SoftOverlong
from workbench.tables import Rollouts, Table
from workbench.training.trainer import Trainer


def test_only_groups_with_both_outcomes_are_accepted():
    rollouts = grouped([[1, 1], [0, 1], [0, 0]])
    everything = torch.ones(6, dtype=torch.bool)
    assert DynamicSampling().accept(rollouts, everything).tolist() == [False, False, True, True, False, False]
    assert DynamicSampling().keep(rollouts, everything).tolist() == [False, False, True, True, False, False]
    assert DynamicSampling(drop=False).keep(rollouts, everything).all()


@pytest.fixture(scope="module")
def step():
    methods = ["grpo", {"name": "dynamic_sampling", "max_rounds": 6}]
    return Trainer(wb.preset("smoke", {"methods": methods})).step(1)


def test_rounds_go_on_until_the_batch_is_full_of_mixed_groups(step):
    assert 1 < step.metrics["sampling/rounds"] <= 6
    assert len(step.rollouts.prompts) == 8
    if step.metrics["sampling/rounds"] < 6:
        assert step.metrics["group/zero_variance_fraction"] == 0
    sequences = step.rollouts.sequences
    assert sequences.prompt.bincount().tolist() == [4] * 8
    assert torch.equal(step.rollouts.sum_by_sequence(torch.ones(len(step.rollouts.tokens))).long(), sequences.length)
    assert len(set(sequences.prompt_id.tolist())) == 8, "further rounds go on through the training set"


def test_the_text_still_belongs_to_its_prompt_after_groups_of_several_rounds_are_joined(step):
    trainer = Trainer(wb.preset("smoke"))
    for row, prompt in enumerate(step.rollouts.sequences.prompt.tolist()):
        text = step.rollouts.sequences.prompt_text[row]
        assert trainer.policy.tokenizer.decode(step.rollouts.prompts[prompt]) == text
        assert trainer.collector.prompts[int(step.rollouts.sequences.prompt_id[row])].text == text


def test_a_batch_that_cannot_be_filled_is_trained_without_the_uniform_groups():
    methods = ["grpo", {"name": "dynamic_sampling", "max_rounds": 1}]
    result = Trainer(wb.preset("smoke", {"methods": methods})).step(1)
    constant = result.rollouts.broadcast_to_tokens(result.rollouts.group_is_constant(result.rollouts.sequences.reward))
    assert constant.any() and not constant.all()
    assert torch.equal(result.rollouts.tokens.logp.isnan(), constant)


def test_long_responses_lose_reward_linearly():
    method = SoftOverlong(buffer=0.5, penalty=0.4)
    method.begin(PROGRESS)
    assert LONGEST == 9
    length = torch.tensor([1, 4, 5, 9, 9])
    rollouts = Rollouts([], Table(length=length), Table())
    expected = [1, 1, 1 - 0.4 * 0.5 / 4.5, 1 - 0.4, 0 - 0.4]
    got = method.reward(rollouts, torch.tensor([1.0, 1, 1, 1, 0], dtype=torch.float64))
    assert got.tolist() == pytest.approx(expected)


def test_the_bundle_stands_for_its_parts_and_hashes_like_them():
    short = make_config({"methods": ["dapo"]})
    assert [m["name"] for m in short.methods] == [
        "grpo", "clip_higher", "dual_clip", "dynamic_sampling", "soft_overlong"
    ]  # fmt: skip
    parts = ["grpo", "clip_higher", {"name": "dual_clip", "c": 10}, "dynamic_sampling", "soft_overlong"]
    assert short.content_hash == make_config({"methods": parts}).content_hash
    assert make_config({"methods": [{"name": "dapo", "clip_high": 0.3}]}).methods[1]["high"] == 0.3
    with pytest.raises(ConfigError, match="did you mean 'clip_high'"):
        make_config({"methods": [{"name": "dapo", "clip_hig": 0.3}]})
