"""Entropy bonus, adaptive regularisation, reweighting, entropy-shaped advantages; replays of published runs."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import workbench as wb
from tests.methods.made_up import PROGRESS, config_of, double_policy, made_up_rollouts, update_on
from workbench.config import ConfigError, make_config
from workbench.methods.adaptive_entropy import AdaptiveEntropy
from workbench.methods.entropy_adv import EntropyAdv
from workbench.methods.pos_adv_reweight import PosAdvReweight
from workbench.tables import Rollouts, Table
from workbench.training.trainer import Trainer
from workbench.training.update import score_in_parts

PUBLISHED = json.loads((Path(__file__).parent / "published_curves.json").read_text())["curves"]


def of_entropy(value):
    return Rollouts([], Table(), Table(entropy=torch.tensor([value, value], dtype=torch.float64)))


@pytest.mark.parametrize("coefficient", [0.7, -0.3])
def test_the_bonus_has_the_gradient_of_the_entropy(coefficient):
    """Along a random direction in weight space, against a finite difference of the mean entropy."""
    policy = double_policy()
    rollouts = made_up_rollouts(policy)
    bonus = {"name": "entropy_bonus", "coefficient": coefficient}
    with_it, without = (update_on(policy, rollouts, config_of(m)) for m in (["grpo", bonus], ["grpo"]))
    gradient = [a - b for a, b in zip(with_it.gradients, without.gradients, strict=True)]
    g = torch.Generator().manual_seed(0)
    direction = [torch.randn(p.shape, generator=g, dtype=p.dtype) for p in policy.parameters]
    slope = sum((a * b).sum() for a, b in zip(gradient, direction, strict=True)).item()
    step, entropy = 1e-5, []
    for sign in (1, -1):
        with torch.no_grad():
            for p, d in zip(policy.parameters, direction, strict=True):
                p.add_(d, alpha=sign * step)
            entropy.append(score_in_parts(policy, rollouts, 4096).entropy.mean().item())
            for p, d in zip(policy.parameters, direction, strict=True):
                p.sub_(d, alpha=sign * step)
    assert slope == pytest.approx(-coefficient * (entropy[0] - entropy[1]) / (2 * step), rel=1e-5)
    assert abs(slope) > 1e-3


def test_a_bonus_moves_the_bundled_policys_entropy_either_way():
    def entropy_after(coefficient):
        methods = ["grpo", {"name": "entropy_bonus", "coefficient": coefficient}]
        trainer = Trainer(
            wb.preset("smoke", {"methods": methods, "training.steps": 12, "optimiser.learning_rate": 1e-3})
        )
        return [trainer.step(k).metrics["entropy/mean"] for k in range(1, 13)][-1]

    down, none, up = (entropy_after(c) for c in (-0.5, 0.0, 0.5))
    assert down < none < up


def test_adaptive_coefficient_by_the_rule():
    method, applied = AdaptiveEntropy(target=0.2, delta=0.01), []
    for entropy in (0.3, 0.25, 0.1, 0.1, 0.1, 0.1, 0.2, 0.3):
        method.look(of_entropy(entropy))
        applied.append(method.measures()["coefficient"])
    # c: 0, −.01, −.02, −.01, 0, .01, .02, .01 before each step; α is c where H ≤ δ, else 0
    assert applied == pytest.approx([0, 0, -0.02, -0.01, 0, 0.01, 0.02, 0])


def test_a_floor_lets_the_bonus_come_back_at_once():
    method = AdaptiveEntropy(target=0.2, delta=0.01, floor=0.0)
    for entropy in (0.9, 0.9, 0.9, 0.1, 0.1):
        method.look(of_entropy(entropy))
    assert method.measures()["coefficient"] == pytest.approx(0.01)


def test_the_initial_entropy_is_measured_once():
    method = AdaptiveEntropy(target="initial")
    for entropy in (0.31, 0.4, 0.2):
        method.look(of_entropy(entropy))
    assert method.measures()["target"] == pytest.approx(0.31)


def test_adaptive_regularisation_replayed_on_its_published_run():
    """Target 0.2: c falls while entropy is above it, so the bonus comes some steps after entropy has crossed it."""
    method, applied = AdaptiveEntropy(target=0.2), []
    for entropy in PUBLISHED["Ada-Ent-Reg 0.2"]:
        method.look(of_entropy(entropy))
        applied.append(method.measures()["coefficient"])
    below = next(k for k, entropy in enumerate(PUBLISHED["Ada-Ent-Reg 0.2"]) if entropy < 0.2)
    positive = next(k for k, coefficient in enumerate(applied) if coefficient > 0)
    assert 8 <= below <= 14
    assert below < positive <= 2 * below + 4
    assert all(coefficient == 0 for coefficient in applied[:below])


def test_reweighting_follows_the_papers_rule():
    """λ climbs while entropy is above the target and falls below it, by Δ, within [0, 1]."""
    method, seen = PosAdvReweight(), []
    for entropy in [0.36] * 3 + [0.1] * 5 + [0.5] * 25 + [0.2]:
        seen.append(method.measures()["lambda"])
        method.observe({"entropy/mean": entropy})
    assert seen[:8] == pytest.approx([0, 0.05, 0.1, 0.15, 0.1, 0.05, 0, 0])
    assert seen[-1] == 1.0
    assert method.measures()["lambda"] == 1.0, "at the target itself λ goes up"


def test_reweighting_replayed_on_its_published_run():
    """λ climbs to .6 by step 13, is back at 0 by step 27, and then stays well below 1 on average."""
    method, path = PosAdvReweight(), []
    for entropy in PUBLISHED["PAR entropy"]:
        path.append(method.measures()["lambda"])
        method.observe({"entropy/mean": entropy})
    assert max(path[:20]) == pytest.approx(0.6) == path[12]
    assert path[26] == pytest.approx(0.0, abs=1e-9)
    means = [sum(path[a:b]) / (b - a) for a, b in ((19, 100), (99, 200), (199, 300), (299, 402))]
    assert means == pytest.approx([0.227, 0.326, 0.325, 0.177], abs=0.01)


def schedule(steps, **parameters):
    method, path = PosAdvReweight(**parameters), []
    for step in range(1, steps + 1):
        method.begin(replace(PROGRESS, step=step, steps=steps, epoch=1 + (step - 1) // 67, epochs=6))
        path.append(method.measures()["lambda"])
        method.observe({"entropy/mean": 0.0})
    return path


def test_stage_schedule_is_zero_for_half_the_run_and_then_rises_to_one():
    path = schedule(402, schedule="stage")
    assert set(path[:201]) == {0.0}
    assert path[-1] == 1.0
    assert path[301] == pytest.approx((302 - 201) / 201)


def test_epoch_schedule_rises_by_a_fifth_per_epoch():
    assert sorted(set(schedule(402, schedule="epoch"))) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    assert schedule(402, schedule="epoch")[67] == pytest.approx(0.2)
    assert sorted(set(schedule(60, schedule="epoch", epochs=4))) == pytest.approx([0, 1 / 3, 2 / 3, 1])
    with pytest.raises(ConfigError, match=r"set pos_adv_reweight\.epochs"):
        make_config({"methods": ["grpo", {"name": "pos_adv_reweight", "schedule": "epoch"}]})


def test_constant_zero_is_training_on_nonpositive_advantages_only():
    policy = double_policy()
    rollouts = made_up_rollouts(policy)
    zero = {"name": "pos_adv_reweight", "schedule": "constant", "initial": 0.0}
    mask = {"name": "sign_mask", "train": "nonpositive"}
    one, other = (update_on(policy, rollouts, config_of(["grpo", m])) for m in (zero, mask))
    assert one.loss == other.loss
    assert all(torch.equal(a, b) for a, b in zip(one.gradients, other.gradients, strict=True))


def test_reweighting_touches_rewarded_tokens_only():
    tokens = Rollouts([], Table(), Table(advantage=torch.tensor([1.0, -1.0, 0.0])))
    assert PosAdvReweight(initial=0.25).weight(tokens, torch.ones(3)).tolist() == [0.25, 1.0, 1.0]


def test_entropy_shaping_keeps_signs_and_is_capped():
    advantage, entropy = [1.0, -1.0, 0.2, 0.0, -0.1], [0.5, 0.5, 3.0, 3.0, 3.0]
    rollouts = Rollouts([], Table(), Table(entropy=torch.tensor(entropy, dtype=torch.float64)))
    got = EntropyAdv().advantage(rollouts, torch.tensor(advantage, dtype=torch.float64))
    expected = [a + min(0.4 * h, abs(a) / 2) for a, h in zip(advantage, entropy, strict=True)]
    assert got.tolist() == pytest.approx(expected)
    assert (got.sign() == torch.tensor(advantage).sign()).all()


@pytest.mark.parametrize(
    "entry", [{"name": "adaptive_entropy", "target": -0.1}, {"name": "pos_adv_reweight", "target": -1}]
)
def test_a_target_below_zero_is_refused(entry):
    with pytest.raises(ConfigError, match=rf"{entry['name']}.*target"):
        make_config({"methods": ["grpo", entry]})
