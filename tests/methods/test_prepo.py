"""PREPO: the window over prompt perplexity and the weight of relative entropy."""

import math
from dataclasses import replace

import pytest
import torch

from tests.methods.hand_made import hand_made
from workbench.config import ConfigError, ObjectiveConfig, make_config
from workbench.methods import Composition, Progress
from workbench.methods.grpo import Grpo
from workbench.methods.prepo import Prepo
from workbench.tables import Table
from workbench.training.objective import prepare, token_loss

NOW = Progress(seed=0, step=1, steps=11, epoch=1, epochs=1)
PERPLEXITY = [5.0, 1.0, 9.0, 3.0, 7.0, 2.0, 8.0, 4.0, 6.0, 10.0]


def selected(method, step, perplexity=PERPLEXITY, rows=None):
    method.begin(replace(NOW, step=step))
    table = Table(id=torch.arange(len(perplexity)), perplexity=torch.tensor(perplexity))
    chosen = method.select(table, torch.arange(len(perplexity)) if rows is None else rows)
    return sorted(perplexity[i] for i in chosen.tolist())


@pytest.mark.parametrize("step", range(1, 12))
def test_the_window_climbs_from_the_lowest_to_the_highest_perplexity(step):
    got = selected(Prepo(keep_fraction=0.3), step)
    first = math.floor((step - 1) / 10 * 7 + 1e-9)
    assert got == sorted(PERPLEXITY)[first : first + 3]


def test_the_ends_of_the_schedule_are_the_static_choices():
    low, high = (Prepo(keep_fraction=0.3, schedule=name) for name in ("low", "high"))
    for step in (1, 6, 11):
        assert selected(low, step) == [1.0, 2.0, 3.0]
        assert selected(high, step) == [8.0, 9.0, 10.0]
    assert selected(Prepo(keep_fraction=0.3), 1) == [1.0, 2.0, 3.0]
    assert selected(Prepo(keep_fraction=0.3), 11) == [8.0, 9.0, 10.0]
    assert selected(Prepo(keep_fraction=0.3, rank_span=0.5), 11) == [4.0, 5.0, 6.0]
    assert selected(Prepo(schedule="off"), 6) == sorted(PERPLEXITY)


def test_prompts_come_in_the_order_drawn_and_equal_ones_go_by_it():
    method = Prepo(keep_fraction=0.5, schedule="low")
    table = Table(perplexity=torch.tensor([2.0, 3.0, 1.0, 2.0]))
    assert method.select(table, torch.arange(4)).tolist() == [0, 2], "of the two of 2.0, the first"
    assert method.select(table, torch.tensor([3, 1])).tolist() == [3], "out of those handed on"


@pytest.mark.parametrize("fraction", [0.05, 0.1, 0.2, 0.3, 1 / 3, 0.7, 0.9, 1.0])
@pytest.mark.parametrize("count", [1, 2, 3, 8, 10, 32, 96, 256])
def test_as_many_candidates_are_drawn_as_leave_the_count_wanted(fraction, count):
    method = Prepo(keep_fraction=fraction)
    method.begin(replace(NOW, step=6))
    drawn = method.candidates(count)
    table = Table(perplexity=torch.rand(drawn, generator=torch.Generator().manual_seed(0)))
    assert len(method.select(table, torch.arange(drawn))) == count


def test_a_run_of_a_single_step_starts_at_the_bottom():
    method = Prepo(keep_fraction=0.5)
    method.begin(replace(NOW, step=1, steps=1))
    assert method.select(Table(perplexity=torch.tensor([2.0, 1.0])), torch.arange(2)).tolist() == [1]


LENGTHS = [1, 3, 2, 1]
ENTROPY = [0.8, 0.1, 0.2, 0.6, 0.5, 0.7, 1.0]


def batch(entropy=ENTROPY):
    advantages = {"advantage": [1.0, -1.0, 1.0, 0.0]}
    return hand_made([[1, 0], [1, 0]], LENGTHS, sequences=advantages, tokens={"entropy": entropy})


def test_responses_weigh_their_entropy_relative_to_the_mini_batch():
    means = [0.8, 0.3, 0.6, 1.0]
    weights = [m / (sum(means) / 4) for m in means]
    expected = [w * 3.0 for w, n in zip(weights, LENGTHS, strict=True) for _ in range(n)]
    method = Prepo()
    got = method.weight(batch(), torch.full((7,), 3.0, dtype=torch.float64))
    assert got.tolist() == pytest.approx(expected, rel=1e-12)
    assert sum(weights) / 4 == pytest.approx(1)
    positive, negative = (weights[0] + weights[2]) / 2, weights[1]
    assert method.measures() == pytest.approx({"weight_positive": positive, "weight_negative": negative})


def test_weights_are_clamped_when_asked_and_finite_without_any_entropy():
    got = Prepo(clamp_low=0.5, clamp_high=1.2).weight(batch(), torch.ones(7, dtype=torch.float64))
    assert got.min() == 0.5 and got.max() == 1.2
    assert Prepo().weight(batch([0.0] * 7), torch.ones(7, dtype=torch.float64)).tolist() == [0] * 7


def test_the_gradient_of_a_token_is_scaled_by_its_responses_weight():
    """On-policy and with A = 1 on all 7 tokens, d loss / d logp = −w/7; nothing flows through w."""
    methods = Composition([Grpo(), Prepo()])
    tokens = prepare(batch(), methods, ObjectiveConfig(), 9).tokens
    logp = tokens.old_logp.clone().requires_grad_()
    loss = token_loss(tokens, methods.ratio(tokens, logp), logp, tokens.entropy, methods)
    (tokens.share * loss).sum().backward()
    weights = [w / 0.675 for w in (0.8, 0.3, 0.3, 0.3, 0.6, 0.6, 1.0)]
    assert logp.grad.tolist() == pytest.approx([-w / 7 for w in weights], rel=1e-12)


def test_settings_that_cannot_work_are_refused_or_cautioned():
    with pytest.raises(ConfigError, match=r"ranks 160 candidates.*train_size is 100"):
        make_config({}, {"methods": ["grpo", "prepo"], "task.train_size": 100})
    everything = {"methods": ["grpo", {"name": "prepo", "keep_fraction": 1.0}]}
    assert "leaves no candidate out" in make_config({}, everything).cautions()[0]
    assert make_config({}, {"methods": ["grpo", "prepo"]}).cautions() == []


def test_what_is_not_used_is_not_asked_for():
    assert Prepo(relative_entropy=False).needs() == {"prompt_perplexity"}
    assert Prepo(schedule="off").needs() == {"old_logp"}
    assert Prepo(schedule="off", relative_entropy=False).needs() == set()
