"""AER: the difficulty weight, its gradient, and the controller's path."""

import math

import pytest
import torch

from tests.methods.hand_made import hand_made
from tests.methods.made_up import config_of, double_policy, made_up_rollouts, update_on
from workbench.config import ConfigError, make_config
from workbench.methods.aer import Aer
from workbench.plots.published import published_curve

GROUPS = [[1, 1, 1, 1], [1, 1, 1, 0], [1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]
ACCURACY = [1.0, 0.75, 0.5, 0.25, 0.0]
RULES = {
    "linear": lambda g: max(0.0, (0.5 - g) / 0.5),
    "step": lambda g: 1.0 if g <= 0.5 else 0.0,
    "smooth": lambda g: 1 / (1 + math.exp(-(0.5 - g) / 0.1)),
    "onelin": lambda g: 1 - g,
    "uniform": lambda g: 1.0,
}
LENGTHS = [1, 3, 2, 1] * 5


def batch():
    return hand_made(GROUPS, LENGTHS)


@pytest.mark.parametrize("weighting", RULES)
@pytest.mark.parametrize("floor", [0.0, 0.2])
@pytest.mark.parametrize("normalise", [False, True])
def test_harder_prompts_weigh_more(weighting, floor, normalise):
    method = Aer(weighting=weighting, floor=floor, normalise=normalise)
    per_group = [max(floor, RULES[weighting](g)) for g in ACCURACY]
    expected = [w for w, start in zip(per_group, range(0, 20, 4), strict=True) for _ in range(sum(LENGTHS[start:][:4]))]
    if normalise:
        mean = sum(expected) / len(expected)
        expected = [w / mean for w in expected]
    assert method.mark(batch())["aer_weight"].tolist() == pytest.approx(expected, rel=1e-12)


def test_a_batch_of_easy_prompts_has_no_bonus_even_when_normalised():
    easy = hand_made([[1, 1], [1, 1]])
    assert Aer(normalise=True).mark(easy)["aer_weight"].tolist() == [0, 0, 0, 0]


def test_the_bonus_has_the_gradient_of_the_weighted_entropy():
    method = Aer(initial=0.03)
    r = batch()
    tokens = r.with_tokens(**method.mark(r)).tokens
    entropy = torch.rand(len(tokens), dtype=torch.float64, requires_grad=True)
    method.regulariser(tokens, tokens.logp, entropy).sum().backward()
    torch.testing.assert_close(entropy.grad, -0.03 * tokens.aer_weight, rtol=1e-12, atol=0)
    assert Aer().regulariser(tokens, tokens.logp, entropy) is None


def path(method, entropies):
    """α of each step, and of the step after the last."""
    out = []
    for entropy in entropies:
        out.append(method.measures()["alpha"])
        method.observe({"entropy/mean": entropy})
    return [*out, method.measures()["alpha"]]


def test_the_coefficient_waits_for_the_target_and_rises_exactly_while_entropy_is_below_it():
    """On the published GRPO run, whose entropy ends at .017: α is 0 until H < 0.4·H_0, then never falls."""
    entropy = published_curve().value.tolist()
    target = 0.4 * entropy[0]
    alpha = path(Aer(), entropy)
    below = next(k for k, h in enumerate(entropy) if h < target)
    assert below > 20, "the run must start well above the target"
    assert alpha[: below + 1] == [0.0] * (below + 1)
    assert alpha[-1] == 0.05, "nothing answers to α on a recorded run, so it ends at its bound"
    for k, h in enumerate(entropy):
        if 0 < alpha[k] < 0.05 and 0 < alpha[k + 1] < 0.05:
            assert (alpha[k + 1] > alpha[k]) == (h < target)


@pytest.mark.parametrize("update", ["additive", "sign", "exp", "two_sided"])
def test_each_rule_moves_the_coefficient_as_written(update):
    initial, rate, top = 0.02, 0.05, 0.05
    method = Aer(update=update, initial=initial, rate=rate, target=0.5)
    alpha, expected = initial, []
    entropies = [0.9, 0.5, 0.2, 0.1, 0.6, 3.0, 3.0, 0.05]
    for h in entropies:
        expected.append(alpha)
        gap = 0.5 - h
        sign = math.copysign(1, gap) if gap else 0
        alpha = {
            "additive": max(0, alpha + rate * gap),
            "two_sided": max(-top, alpha + rate * gap),
            "sign": max(0, alpha + rate * sign),
            "exp": alpha * math.exp(rate * gap / 0.5),
        }[update]
        alpha = min(top, alpha)
    assert path(method, entropies) == pytest.approx([*expected, alpha], rel=1e-12)
    assert (min(expected) < 0) == (update == "two_sided")


def test_the_target_is_a_share_of_the_first_steps_entropy_or_given():
    method = Aer(target_ratio=0.25)
    assert "target" not in method.measures()
    path(method, [0.8, 0.3])
    assert method.measures()["target"] == pytest.approx(0.2)
    absolute = Aer(target=0.3)
    path(absolute, [0.8])
    assert absolute.measures()["target"] == 0.3


def test_the_coefficient_holds_still_while_it_has_nothing_to_act_on():
    """Below 1 % of tokens with w > 0 it would wind up to its bound without any effect."""
    method = Aer(target=0.5)
    one_hard_token = hand_made([[1, 1], [0, 0]], [99, 100, 1, 1])
    method.look(hand_made([[1, 1], [1, 1]]))
    assert path(method, [0.1, 0.1]) == [0, 0, 0]
    assert method.measures()["active_fraction"] == 0
    method.look(one_hard_token)
    assert method.measures()["active_fraction"] == pytest.approx(2 / 201)
    assert path(method, [0.1]) == [0, 0], "2 of 201 tokens are still below 1 %"
    method.look(batch())
    assert path(method, [0.1])[-1] == pytest.approx(0.005 * 0.4)
    floored = Aer(target=0.5, floor=0.01)
    floored.look(hand_made([[1, 1], [1, 1]]))
    assert path(floored, [0.1])[-1] > 0


def test_a_fixed_coefficient_is_a_rate_of_zero():
    assert path(Aer(rate=0, initial=0.01), [0.9, 0.1, 0.5]) == [0.01] * 4


def test_a_fixed_uniform_bonus_is_the_entropy_bonus():
    policy = double_policy()
    rollouts = made_up_rollouts(policy)
    fixed = {"name": "aer", "weighting": "uniform", "rate": 0, "initial": 0.5, "maximum": 0.5}
    bonus = {"name": "entropy_bonus", "coefficient": 0.5}
    one, other = (update_on(policy, rollouts, config_of(["grpo", method])) for method in (fixed, bonus))
    assert one.loss == other.loss
    assert all(torch.equal(a, b) for a, b in zip(one.gradients, other.gradients, strict=True))


def test_settings_that_cannot_work_are_refused_or_cautioned():
    def config(*methods):
        return make_config({}, {"methods": ["grpo", *methods]})

    with pytest.raises(ConfigError, match=r"aer\.initial is 0\.1, outside"):
        config({"name": "aer", "initial": 0.1})
    with pytest.raises(ConfigError, match=r"aer\.initial is -0\.01, outside"):
        config({"name": "aer", "initial": -0.01})
    config({"name": "aer", "initial": -0.01, "update": "two_sided"})
    with pytest.raises(ConfigError, match="stays 0"):
        config({"name": "aer", "update": "exp"})
    assert "group accuracy" in config("aer", "sample_polarity").cautions()[0]
    assert config("aer").cautions() == []
