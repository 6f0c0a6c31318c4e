"""Ratios, surrogates and clip bounds on hand-made tokens in fp64: values by a naive loop, gradients in closed form."""

import itertools
import math

import pytest
import torch

from tests.methods.made_up import config_of, double_policy, made_up_rollouts, update_on
from workbench.config import METHODS, ConfigError, make_config
from workbench.methods import Composition
from workbench.methods.kl_reference import kl_estimate
from workbench.tables import Rollouts, Table
from workbench.training.objective import prepare, token_loss

LOGP = [-0.5, -2.0, -0.1, -1.0, -3.0, -0.7]
OLD = [-0.9, -1.2, -0.1, -1.5, -2.0, -0.2]
ADVANTAGE = [1.0, 1.0, 1.0, -0.5, -0.5, 0.0]
LENGTHS = [3, 1, 2]  # a response of length 1 among them


def batch():
    sequence = torch.repeat_interleave(torch.arange(3), torch.tensor(LENGTHS))
    position = torch.cat([torch.arange(n) for n in LENGTHS])
    columns = {"old_logp": OLD, "rollout_logp": OLD, "advantage": ADVANTAGE, "logp": LOGP}
    columns = {name: torch.tensor(values, dtype=torch.float64) for name, values in columns.items()}
    index = torch.arange(3)
    sequences = Table(prompt=index, sample=index * 0, group=index, length=torch.tensor(LENGTHS))
    return Rollouts([], sequences, Table(sequence=sequence, position=position, **columns))


def losses(*methods, updates=2):
    """Per-token losses [6] and their gradients with respect to log π [6]."""
    config = make_config({"methods": ["grpo", *methods]}, {"training.updates_per_rollout": updates})
    composed = Composition(config.build_methods())
    tokens = prepare(batch(), composed, config.objective, 9).tokens
    logp = tokens.logp.clone().requires_grad_()
    loss = token_loss(tokens, composed.ratio(tokens, logp), logp, torch.zeros_like(logp), composed)
    return loss.detach().tolist(), torch.autograd.grad(loss.sum(), logp)[0].tolist()


def ppo(ratio, advantage, low=0.2, high=0.2):
    """Value and derivative with respect to log π of −min(rA, clip(r)A)."""
    clipped = min(max(ratio, 1 - low), 1 + high)
    cut = clipped * advantage < ratio * advantage
    return -(clipped if cut else ratio) * advantage, 0.0 if cut else -ratio * advantage


RATIO = [math.exp(a - b) for a, b in zip(LOGP, OLD, strict=True)]


def assert_losses(got, expected):
    for one, other in zip(got, zip(*expected, strict=True), strict=True):
        assert one == pytest.approx(other, abs=1e-12)


BOUNDS = {
    "clip_higher": (0.2, 0.28),
    "clip_lower": (0.28, 0.2),
    "clip_tighter": (0.12, 0.2),
    "clip_free": (1.0, math.inf),
    "clip_low_only": (0.2, math.inf),
    "clip_high_only": (1.0, 0.2),
}


@pytest.mark.parametrize("name", BOUNDS)
def test_named_bounds_are_ppo_with_the_papers_numbers(name):
    low, high = BOUNDS[name]
    assert_losses(losses(name), [ppo(r, a, low, high) for r, a in zip(RATIO, ADVANTAGE, strict=True)])


def test_without_a_method_the_surrogate_is_ppo_clip():
    assert_losses(losses(), [ppo(r, a) for r, a in zip(RATIO, ADVANTAGE, strict=True)])


def test_clip_free_is_the_plain_ratio_and_loses_no_gradient():
    assert_losses(losses("clip_free"), [(-r * a, -r * a) for r, a in zip(RATIO, ADVANTAGE, strict=True)])


def test_dual_clip_bounds_the_loss_of_punished_tokens_only():
    def dual(ratio, advantage, c=1.5):
        value, slope = ppo(ratio, advantage)
        return (-c * advantage, 0.0) if advantage < 0 and -c * advantage < value else (value, slope)

    expected = [dual(r, a) for r, a in zip(RATIO, ADVANTAGE, strict=True)]
    assert expected != [ppo(r, a) for r, a in zip(RATIO, ADVANTAGE, strict=True)], "the case must exercise the bound"
    assert_losses(losses({"name": "dual_clip", "c": 1.5}), expected)


def test_cispo_is_a_clipped_constant_weight_of_reinforce():
    def cispo(ratio, advantage, logp, high=0.3):
        weight = min(ratio, 1 + high)
        return -weight * advantage * logp, -weight * advantage

    expected = [cispo(*token) for token in zip(RATIO, ADVANTAGE, LOGP, strict=True)]
    assert_losses(losses({"name": "cispo", "high": 0.3}), expected)


def test_gspo_gives_every_token_of_a_response_the_same_ratio():
    starts = [0, 3, 4, 6]
    expected = []
    for first, last in itertools.pairwise(starts):
        gaps = [a - b for a, b in zip(LOGP[first:last], OLD[first:last], strict=True)]
        ratio = math.exp(sum(gaps) / len(gaps))
        expected += [ppo(ratio, a, 0.4, 0.1) for a in ADVANTAGE[first:last]]
    assert_losses(losses({"name": "gspo", "low": 0.4, "high": 0.1}), expected)


def test_gspo_on_policy_has_the_gradient_of_grpo():
    policy = double_policy()
    rollouts = made_up_rollouts(policy, noise=0.0)
    grpo, gspo = (update_on(policy, rollouts, config_of(m)) for m in (["grpo"], ["grpo", "gspo"]))
    assert torch.allclose(gspo.tokens["ratio"], torch.ones((), dtype=torch.float64), atol=1e-12)
    for one, other in zip(grpo.gradients, gspo.gradients, strict=True):
        assert (one - other).norm() <= 1e-12 * max(1.0, one.norm())


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
def test_kl_penalties_against_their_formulas_and_the_exact_kl(estimator):
    d = [-0.3, 0.0, 0.8]
    logp = torch.tensor([-1.0, -2.0, -0.5], dtype=torch.float64, requires_grad=True)
    other = logp.detach() + torch.tensor(d, dtype=torch.float64)
    value = {"k1": lambda x: -x, "k2": lambda x: x * x / 2, "k3": lambda x: math.exp(x) - x - 1}[estimator]
    slope = {"k1": lambda x: 1.0, "k2": lambda x: -x, "k3": lambda x: 1 - math.exp(x)}[estimator]
    got = kl_estimate(logp, other, estimator)
    assert got.tolist() == pytest.approx([value(x) for x in d])
    assert torch.autograd.grad(got.sum(), logp)[0].tolist() == pytest.approx([slope(x) for x in d])
    logits, reference = torch.randn(2, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    p, q = logits.log_softmax(-1), reference.log_softmax(-1)
    exact = (p.exp() * (p - q)).sum()
    estimate = (p.exp() * kl_estimate(p, q, estimator)).sum()
    if estimator == "k2":
        assert estimate != pytest.approx(exact.item(), rel=1e-3), "k2 is biased"
    else:
        torch.testing.assert_close(estimate, exact)


def test_the_gradient_of_k1_has_expectation_zero_and_that_of_k2_is_the_kls():
    logits = torch.randn(9, dtype=torch.float64, generator=torch.Generator().manual_seed(1), requires_grad=True)
    reference = torch.randn(9, dtype=torch.float64, generator=torch.Generator().manual_seed(2)).log_softmax(-1)
    logp = logits.log_softmax(-1)
    sampling = logp.exp().detach()
    exact = torch.autograd.grad((logp.exp() * (logp - reference)).sum(), logits, retain_graph=True)[0]
    k1, k2 = (
        torch.autograd.grad((sampling * kl_estimate(logp, reference, name)).sum(), logits, retain_graph=True)[0]
        for name in ("k1", "k2")
    )
    assert k1.abs().max() < 1e-12
    torch.testing.assert_close(k2, exact)


def test_two_methods_for_one_place_are_refused():
    for pair, what in ((["cispo", "dual_clip"], "surrogate"), (["clip_free", "clip_higher"], "clip")):
        with pytest.raises(ConfigError, match=f"each give a {what}"):
            make_config({"methods": ["grpo", *pair]})
    with pytest.raises(ConfigError, match="'entropy_bonus' twice"):
        make_config({"methods": ["grpo", "entropy_bonus", "entropy_bonus"]})


@pytest.mark.parametrize("name", [*BOUNDS, "gspo", "cispo", "dual_clip"])
def test_bounds_that_can_never_be_reached_are_cautioned(name):
    once = make_config({"methods": ["grpo", name]}, {"training.updates_per_rollout": 1}).cautions()
    assert any("inert" in caution for caution in once)
    twice = make_config({"methods": ["grpo", name]}, {"training.updates_per_rollout": 2}).cautions()
    assert not any("inert" in caution for caution in twice)


def test_bounds_of_the_objective_that_cannot_act_are_cautioned():
    assert not make_config({}, {"objective.clip_high": 0.28}).cautions()
    assert not make_config({}, {"training.updates_per_rollout": 1}).cautions()
    (once,) = make_config({}, {"objective.clip_high": 0.28, "training.updates_per_rollout": 1}).cautions()
    assert "objective.clip_high cannot act" in once
    (given,) = make_config({"methods": ["grpo", "clip_higher"]}, {"objective.clip_low": 0.1}).cautions()
    assert "clip_higher gives the clip bounds" in given


def test_bounds_are_in_the_registry_under_the_papers_names():
    assert set(BOUNDS) <= set(METHODS)
