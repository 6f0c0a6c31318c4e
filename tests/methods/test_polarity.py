"""Training on correct or incorrect responses alone."""

from dataclasses import replace

import pytest
import torch

from tests.methods.hand_made import hand_made
from workbench.config import ConfigError, ObjectiveConfig, make_config
from workbench.methods import Composition, Progress
from workbench.methods.grpo import Grpo
from workbench.methods.sample_polarity import SamplePolarity
from workbench.training.objective import prepare, token_loss

NOW = Progress(seed=2, step=1, steps=10, epoch=1, epochs=1)
CORRECT = [[1, 0, 1], [0, 0, 0], [1, 1, 1]]
FLAT = [bool(v) for row in CORRECT for v in row]


def kept(method, r, step=1):
    method.begin(replace(NOW, step=step))
    return method.keep(r, torch.ones(len(r.sequences), dtype=torch.bool)).tolist()


def test_responses_stay_by_their_verdict_even_where_the_group_has_no_gradient():
    r = hand_made(CORRECT)
    assert kept(SamplePolarity(train="negative"), r) == [not ok for ok in FLAT]
    assert kept(SamplePolarity(train="positive"), r) == FLAT
    assert kept(SamplePolarity(train="both"), r) == [True] * 9


@pytest.mark.parametrize(
    ("train", "first", "second"),
    [
        ("negative_then_positive", [not ok for ok in FLAT], FLAT),
        ("positive_then_negative", FLAT, [not ok for ok in FLAT]),
        ("negative_then_both", [not ok for ok in FLAT], [True] * 9),
    ],
)
@pytest.mark.parametrize(("switch", "last"), [(0.5, 5), (0.25, 2), (0.0, 0), (1.0, 10)])
def test_the_class_changes_after_the_given_share_of_the_run(train, first, second, switch, last):
    method, r = SamplePolarity(train=train, switch=switch), hand_made(CORRECT)
    for step in range(1, 11):
        assert kept(method, r, step) == (first if step <= last else second)


def test_a_share_of_the_dropped_class_stays_the_same_in_every_part_of_the_batch():
    r = hand_made([[1, 0] * 50] * 40)
    method = SamplePolarity(train="negative", reserve_ratio=0.25)
    stays = torch.tensor(kept(method, r))
    assert stays[~r.sequences.correct].all()
    assert stays[r.sequences.correct].double().mean().item() == pytest.approx(0.25, abs=4 * (0.25 * 0.75 / 2000) ** 0.5)
    assert method.measures()["kept_fraction"] == pytest.approx(stays.double().mean().item())
    order = torch.randperm(4000, generator=torch.Generator().manual_seed(0))[:1000]
    assert torch.equal(method.stays(r.select_sequences(order)), stays[order])
    assert not torch.equal(torch.tensor(kept(method, r, 2)), stays)


def loss_and_gradient(method):
    """Of the mini-batch of the kept responses, on-policy with A = 1 for correct and −1 for incorrect ones."""
    lengths = [1, 2, 1, 3, 1, 1, 2, 1, 1]
    sign = [1.0 if ok else -1.0 for ok, n in zip(FLAT, lengths, strict=True) for _ in range(n)]
    r = hand_made(CORRECT, lengths, tokens={"advantage": sign})
    methods = Composition([Grpo(), method])
    methods.begin(NOW)
    batch = prepare(r.select_sequences(methods.keep(r)), methods, ObjectiveConfig(), 9)
    logp = batch.tokens.old_logp.clone().requires_grad_()
    loss = token_loss(batch.tokens, methods.ratio(batch.tokens, logp), logp, batch.tokens.entropy, methods)
    (batch.tokens.share * loss).sum().backward()
    return logp.grad.tolist()


def test_dropped_responses_leave_the_denominator_or_stay_in_it():
    """6 of 13 tokens belong to correct responses."""
    assert loss_and_gradient(SamplePolarity(train="positive")) == pytest.approx([-1 / 6] * 6)
    full = loss_and_gradient(SamplePolarity(train="positive", denominator="full"))
    assert sorted(full) == pytest.approx([-1 / 13] * 6 + [0.0] * 7)
    negative = loss_and_gradient(SamplePolarity(train="negative", denominator="full"))
    assert sorted(negative) == pytest.approx([0.0] * 6 + [1 / 13] * 7)


def test_nothing_may_be_left():
    assert kept(SamplePolarity(train="positive"), hand_made([[0, 0]])) == [False, False]


def test_a_change_within_a_single_step_is_refused():
    methods = ["grpo", {"name": "sample_polarity", "train": "negative_then_both"}]
    with pytest.raises(ConfigError, match="which has one step"):
        make_config({}, {"methods": methods, "training.steps": 1})
