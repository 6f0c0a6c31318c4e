"""Which prompts a step rolls out: the walk, its memory, prompt perplexity and semantic entropy."""

import math

import pytest
import torch

import workbench as wb
from tests.tiny import own_logps, tiny_policy
from workbench.policy.model import load_policy
from workbench.training.prompts import PromptWalk, prompt_entropy, prompt_perplexity, reading_cautions
from workbench.training.trainer import Trainer


def walk(pool=None, size=10, seed=0):
    made = PromptWalk(size, seed)
    made.enter(torch.ones(size, dtype=torch.bool) if pool is None else pool)
    return made


def test_every_epoch_visits_every_prompt_in_play_once():
    pool = torch.arange(10) % 2 == 0
    taken = walk(pool)
    epochs = [taken.take(5) for _ in range(3)]
    assert all(sorted(epoch) == [0, 2, 4, 6, 8] for epoch in epochs)
    assert epochs[0] != epochs[1]
    assert taken.epoch == 4


def test_what_is_taken_does_not_depend_on_how_it_is_asked_for():
    whole, parts = walk(), walk()
    assert whole.take(17) == [i for count in (3, 9, 5) for i in parts.take(count)]


def test_other_prompts_in_play_start_the_walk_anew_and_the_same_ones_do_not():
    first, second = torch.arange(10) < 5, torch.arange(10) >= 5
    taken = walk(first)
    taken.take(3)
    taken.enter(first)
    assert taken.taken == 3
    taken.enter(second)
    assert taken.taken == 0
    assert set(taken.take(5)) == set(range(5, 10))


def test_a_restored_walk_goes_on_where_it_was():
    pool = torch.arange(10) < 7
    one = walk(pool)
    one.take(9)
    other = PromptWalk(10, 0)
    other.load_state_dict(one.state_dict())
    other.enter(pool)
    assert other.take(6) == one.take(6)


def test_no_prompt_in_play_is_refused():
    with pytest.raises(ValueError, match="no training prompt is left"):
        walk(torch.zeros(10, dtype=torch.bool))


def test_prompt_perplexity_is_over_the_tokens_after_the_first():
    policy = tiny_policy()
    prompts = [torch.tensor(ids) for ids in ([1, 2, 3, 4], [5], [6, 7])]
    got = prompt_perplexity(policy, prompts, budget=64)
    expected = [math.exp(-own_logps(policy.model, p[:1], p[1:])[0].mean().item()) for p in (prompts[0], prompts[2])]
    assert got.tolist() == pytest.approx([expected[0], 1.0, expected[1]], rel=1e-4)


def test_text_that_the_tokenizer_drops_is_said():
    policy = load_policy()
    assert policy.unread_share(["1+2*3=", "4-1="]) == 0
    assert policy.unread_share(["1+2 = abcd"]) == 0.5
    assert reading_cautions(policy, "reduce", ["1+2="]) == []
    assert "no token for 50% of the characters of 'other'" in reading_cautions(policy, "other", ["1+2=abcd"])[0]
    with pytest.raises(ValueError, match="no token for any part"):
        reading_cautions(policy, "other", ["1+2=", "abc"])


def test_an_epoch_of_a_run_ends_when_all_prompts_were_taken():
    trainer = Trainer(wb.preset("smoke", {"task.train_size": 16, "training.steps": 6}))
    seen = []
    for step in range(1, 7):
        progress = trainer.collector.begin(step)
        seen.append((progress.epoch, progress.epochs))
        trainer.collector._draw()
    assert seen == [(1, 3), (1, 3), (2, 3), (2, 3), (3, 3), (3, 3)]


def test_prompt_entropy_is_over_the_positions_that_predict_a_prompt_token():
    policy = tiny_policy()
    prompts = [torch.tensor(ids) for ids in ([1, 2, 3, 4], [5], [6, 7])]
    got = prompt_entropy(policy, prompts, budget=3)
    expected = [own_logps(policy.model, p[:1], p[1:])[1].mean().item() for p in (prompts[0], prompts[2])]
    assert got[[0, 2]].tolist() == pytest.approx(expected, rel=1e-4)
    assert got[1].isnan()
    assert not got.requires_grad
