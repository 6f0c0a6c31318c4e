"""ERPO: advantages of solved groups, the history of prompts and their temperatures."""

import json
import math
import statistics as stats

import pytest
import torch

from tests.methods.hand_made import hand_made
from workbench.config import ConfigError, make_config
from workbench.methods.erpo import Erpo
from workbench.methods.grpo import Grpo
from workbench.tables import Table

SOLVED, MIXED, FAILED = [1, 1, 1, 1], [1, 0, 0, 1], [0, 0, 0, 0]


def prompts(*ids):
    return Table(id=torch.tensor(ids))


def temperatures(method, *ids):
    base = torch.ones(len(ids), dtype=torch.float64)
    return method.temperature(prompts(*ids), base).tolist()


def naive_advantages(rewards, pseudo=0.0, epsilon=1e-6):
    """Python floats: an all-correct group gets one more reward in its statistics."""
    out = []
    for group in rewards:
        values = [*group, pseudo] if min(group) > 0 else group
        spread = stats.stdev(values)
        out += [(r - stats.fmean(values)) / (spread + epsilon) if spread else 0.0 for r in group]
    return out


def test_solved_groups_are_normalised_with_a_wrong_answer_beside_them():
    rewards = [[1.0, 0.9, 1.0, 0.4], [1.0, 0.0, 0.0, 0.7], [0.0, 0.0, 0.0, 0.0], [0.3, 0.3, 0.3, 0.3]]
    r = hand_made([SOLVED, MIXED, FAILED, SOLVED], sequences={"reward": [r for row in rewards for r in row]})
    got = Erpo().baseline(r)
    assert got.tolist() == pytest.approx(naive_advantages(rewards), rel=1e-12, abs=1e-15)
    shifted = Erpo(pseudo_reward=-1.0).baseline(r)
    assert shifted.tolist() == pytest.approx(naive_advantages(rewards, pseudo=-1.0), rel=1e-12, abs=1e-15)


@pytest.mark.parametrize(("size", "published"), [(8, 0.333), (16, 0.243)])
@pytest.mark.parametrize("reward", [1.0, 1e-3, 7.0])
def test_the_advantage_of_a_solved_group_depends_on_its_size_alone(size, published, reward):
    r = hand_made([[1] * size], sequences={"reward": [reward] * size})
    got = Erpo(epsilon=1e-12).baseline(r)
    assert got.tolist() == pytest.approx([1 / math.sqrt(size + 1)] * size, rel=1e-6)
    assert got[0].item() == pytest.approx(published, abs=5e-4)


def test_a_solved_group_rewarded_like_the_pseudo_sample_has_no_gradient():
    r = hand_made([SOLVED], sequences={"reward": [0.1] * 4})
    assert Erpo(pseudo_reward=0.1).baseline(r).tolist() == [0, 0, 0, 0]


def test_without_its_parts_it_is_grpo():
    r = hand_made([SOLVED, MIXED, FAILED], sequences={"reward": [0.1 * i for i in range(12)]})
    method = Erpo(ra=False, temperature_step=0, all_wrong="keep")
    assert torch.equal(method.baseline(r), Grpo().baseline(r))
    assert method.keep(r, torch.ones(12, dtype=torch.bool)).all()
    assert method.rounds() == 1
    base = torch.rand(3)
    assert method.temperature(prompts(1, 2, 3), base) is base


def test_all_wrong_groups_are_dropped_and_sampled_anew_and_solved_ones_count_as_filled():
    r = hand_made([SOLVED, FAILED, MIXED])
    method, every = Erpo(max_rounds=10), torch.ones(12, dtype=torch.bool)
    assert method.keep(r, every).tolist() == [True] * 4 + [False] * 4 + [True] * 4
    assert torch.equal(method.accept(r, every), method.keep(r, every))
    assert method.rounds() == 10
    kept = Erpo(max_rounds=10, all_wrong="keep")
    assert kept.rounds() == 1 and kept.accept(r, every).all()


def visit(method, *groups):
    """One step in which prompt 10 + i has the i-th outcome."""
    method.baseline(hand_made(list(groups)))


@pytest.mark.parametrize(
    ("counts", "path"),
    [
        ("hold", [1.0, 1.1, 1.2, 1.2, 1.2, 1.3, 1.3, 1.3]),
        ("reset", [1.0, 1.1, 1.2, 1.2, 1.0, 1.1, 1.2, 1.3]),
        ("decrement", [1.0, 1.1, 1.2, 1.2, 1.1, 1.2, 1.3, 1.3]),
    ],
)
def test_the_temperature_of_a_prompt_follows_its_history_up_to_the_cap(counts, path):
    """Solved, solved, failed, mixed, then solved three times: only `hold` keeps the two earlier visits."""
    method, seen = Erpo(counts=counts), []
    for outcome in (SOLVED, SOLVED, FAILED, MIXED, SOLVED, SOLVED, SOLVED):
        seen += temperatures(method, 10)
        visit(method, outcome)
    seen += temperatures(method, 10)
    assert seen == pytest.approx(path)
    assert temperatures(method, 999) == [1.0], "a prompt never seen stays at the base temperature"


def test_decrement_stops_at_zero():
    method = Erpo(counts="decrement")
    visit(method, MIXED)
    visit(method, SOLVED)
    assert temperatures(method, 10) == pytest.approx([1.1])


@pytest.mark.parametrize("order", [[0, 1], [1, 0]])
def test_a_prompt_drawn_twice_moves_twice_whatever_the_order(order):
    r = hand_made([SOLVED, MIXED], sequences={"prompt_id": [7] * 8})
    rows = torch.cat([torch.arange(4 * i, 4 * i + 4) for i in order])
    twice = hand_made([SOLVED, SOLVED], sequences={"prompt_id": [7] * 8})
    method = Erpo(counts="decrement")
    method.baseline(twice)
    assert temperatures(method, 7) == pytest.approx([1.2])
    method.baseline(r.select_sequences(rows))
    assert temperatures(method, 7) == pytest.approx([1.2]), "one more, one less"


def test_the_history_survives_a_checkpoint():
    method = Erpo()
    visit(method, SOLVED, MIXED)
    other = Erpo()
    other.load_state_dict(json.loads(json.dumps(method.state_dict())))
    assert temperatures(other, 10, 11) == temperatures(method, 10, 11) == pytest.approx([1.1, 1.0])


def test_measures_tell_how_many_hotter_prompts_were_reactivated():
    method = Erpo()
    visit(method, SOLVED, SOLVED, FAILED)
    assert method.measures() == pytest.approx(
        {"all_correct": 2 / 3, "all_wrong": 1 / 3, "mixed": 0.0, "temperature": 1.0}
    )
    visit(method, MIXED, SOLVED, MIXED)
    assert method.measures()["reactivated"] == pytest.approx(0.5), "of prompts 10 and 11, prompt 10"


def config(method, **overrides):
    return make_config({}, {"methods": [{"name": "erpo", **method}]} | overrides)


def test_impossible_settings_are_refused_with_the_remedy():
    with pytest.raises(ConfigError, match="temperature_max"):
        config({"temperature_max": 0.9})
    with pytest.raises(ConfigError, match=r"erpo\.max_rounds instead"):
        make_config({}, {"methods": ["erpo", "dynamic_sampling"]})
    with pytest.raises(ConfigError, match="use at least 2"):
        config({}, **{"rollout.samples": 1})


def test_a_single_epoch_and_refills_of_nothing_are_cautioned():
    one_epoch = {"training.steps": 10, "task.train_size": 4096}
    assert "draws no prompt twice" in config({}, **one_epoch).cautions()[0]
    assert config({"temperature_step": 0}, **one_epoch).cautions() == []
    assert config({}, **{"training.steps": 10, "task.train_size": 64}).cautions() == []
    several = config({"max_rounds": 5, "all_wrong": "keep", "temperature_step": 0})
    assert "max_rounds is inert" in several.cautions()[0]
