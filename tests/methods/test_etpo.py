"""ETPO: exact dynamic programming on a random tree with the trainer's own functions, its loss, and what β does."""

from itertools import product

import pytest
import torch

from tests.methods.made_up import LONGEST, double_policy, made_up_critic, made_up_rollouts
from workbench.config import ConfigError, ObjectiveConfig, OptimiserConfig, make_config
from workbench.methods import Composition
from workbench.methods.etpo import Etpo
from workbench.policy.soft_head import Layer, soft_head
from workbench.tables import Rollouts, Table, token_index
from workbench.training.advantages import assign_advantages
from workbench.training.critic import sampled_values
from workbench.training.optimiser import Optimiser
from workbench.training.update import accumulate_gradient

VOCAB, DEPTH = 3, 4


class Tree:
    """All words of VOCAB letters and DEPTH tokens, one row per word; a table of logits and of Q per prefix.

    A prefix's hidden state is one-hot, so that an output layer is a table [V, prefixes].
    """

    def __init__(self, seed=0):
        g = torch.Generator().manual_seed(seed)
        words = list(product(range(VOCAB), repeat=DEPTH))
        prefixes = sorted({word[:t] for word in words for t in range(DEPTH)})
        length = torch.full((len(words),), DEPTH)
        sequence, position = token_index(length)
        self.prefix = torch.tensor([prefixes.index(word[:t]) for word in words for t in range(DEPTH)])
        self.token = torch.tensor(words).flatten()
        self.hidden = torch.eye(len(prefixes), dtype=torch.float64)[self.prefix]
        self.reference = torch.randn(VOCAB, len(prefixes), generator=g, dtype=torch.float64)
        self.reward = torch.randn(len(words), generator=g, dtype=torch.float64)
        self.policy, self.q = self.reference.clone(), torch.zeros_like(self.reference)
        sequences = Table(length=length, reward=self.reward)
        self.rollouts = Rollouts([], sequences, Table(sequence=sequence, position=position, token=self.token))

    def soft(self):
        layers = (Layer(self.hidden, weight) for weight in (self.policy, self.reference, self.q))
        return soft_head(*layers, torch.ones(len(self.token), dtype=torch.float64))

    def scored(self):
        """The token columns a critic gives, with the slow copy equal to the critic."""
        now = self.soft()
        return self.rollouts.with_tokens(
            q=sampled_values(self.hidden, self.q, self.token),
            expected_q=now.expected_q,
            target_expected_q=now.expected_q,
            exact_kl=now.kl,
        )

    def sweep(self, method):
        """Set Q of every sampled token to its target, and the policy to the optimum under it."""
        target = method.critic_target(self.scored())
        self.q[self.token, self.prefix] = target
        self.policy = self.reference.log_softmax(0) + self.q / method.beta

    def log_rho(self):
        """log ρ of each word [words]."""
        logp = self.reference.log_softmax(0)[self.token, self.prefix]
        return self.rollouts.sum_by_sequence(logp)


@pytest.mark.parametrize("beta", [0.05, 0.5, 5.0])
def test_the_root_value_is_the_log_sum_exp_over_whole_responses(beta):
    """V(s) = β log Σ_w ρ(w) exp(R(w)/β): token-level soft Bellman updates solve the response-level problem."""
    tree, method = Tree(), Etpo(beta=beta)
    for _ in range(DEPTH):
        tree.sweep(method)
    rollouts = tree.scored()
    roots = method.soft_value(rollouts.tokens)[rollouts.tokens.position == 0]
    expected = beta * (tree.log_rho() + tree.reward / beta).logsumexp(0)
    torch.testing.assert_close(roots, expected.expand_as(roots), rtol=1e-10, atol=1e-10)
    # The converged policy is the response-level optimum, ρ(w)·exp(R(w)/β) normalised.
    log_pi = rollouts.sum_by_sequence(tree.policy.log_softmax(0)[tree.token, tree.prefix])
    torch.testing.assert_close(log_pi, (tree.log_rho() + tree.reward / beta).log_softmax(0), rtol=1e-9, atol=1e-9)


def test_the_converged_tree_is_a_fixed_point_of_critic_and_policy_alike():
    tree, method = Tree(), Etpo(beta=0.5)
    for _ in range(DEPTH):
        tree.sweep(method)
    rollouts = tree.scored()
    torch.testing.assert_close(method.critic_target(rollouts), rollouts.tokens.q, rtol=1e-10, atol=1e-10)
    tree.policy.requires_grad_()
    now = tree.soft()
    columns = {"current_kl": now.kl, "current_expected_q": now.expected_q}
    method.surrogate(rollouts.tokens.with_columns(**columns), None, None).sum().backward()
    assert tree.policy.grad.abs().max() < 1e-10


def test_one_sweep_short_of_the_depth_the_root_does_not_know_the_rewards_yet():
    tree, method = Tree(), Etpo(beta=0.5)
    for _ in range(DEPTH - 1):
        tree.sweep(method)
    rollouts = tree.scored()
    assert method.soft_value(rollouts.tokens)[rollouts.tokens.position == 0].abs().max() < 1e-12


def table(lengths, rewards, seed=0):
    length = torch.tensor(lengths)
    sequence, position = token_index(length)
    g = torch.Generator().manual_seed(seed)
    names = ("q", "expected_q", "target_expected_q", "exact_kl")
    columns = {name: torch.randn(len(sequence), generator=g, dtype=torch.float64) for name in names}
    sequences = Table(length=length, reward=torch.tensor(rewards, dtype=torch.float64))
    return Rollouts([], sequences, Table(sequence=sequence, position=position, **columns))


def test_targets_and_advantages_equal_a_loop_over_tokens():
    lengths, rewards, method = [3, 1, 4], [1.0, 0.0, -1.0], Etpo(beta=0.25)
    r = table(lengths, rewards)
    value = [(e - 0.25 * k).item() for e, k in zip(r.tokens.target_expected_q, r.tokens.exact_kl, strict=True)]
    expected, start = [], 0
    for length, reward in zip(lengths, rewards, strict=True):
        expected += [value[start + t + 1] if t < length - 1 else reward for t in range(length)]
        start += length
    torch.testing.assert_close(method.critic_target(r), torch.tensor(expected, dtype=torch.float64))
    torch.testing.assert_close(method.advantage(r, None), r.tokens.q - r.tokens.expected_q)
    assert torch.equal(method.baseline(r), r.sequences.reward)


def test_measures_are_means_over_the_batch():
    r, method = table([2, 1], [1.0, 0.0]), Etpo(beta=0.25)
    method.advantage(r, None)
    t, error = r.tokens, method.critic_target(r) - r.tokens.q
    assert method.measures() == pytest.approx(
        {
            "kl": t.exact_kl.mean().item(),
            "root_value": (t.target_expected_q - 0.25 * t.exact_kl)[[0, 2]].mean().item(),
            "advantage_std": (t.q - t.expected_q).std(correction=0).item(),
            "bellman_error": error.square().mean().sqrt().item(),
        }
    )


def loss_and_gradient(variant, policy, nudge=None):
    """Loss and gradients of one update on the made-up batch; `nudge` moves one weight of the policy."""
    config = make_config({}, {"methods": [{"name": "etpo", "variant": variant, "beta": 0.3}], "rollout.samples": 4})
    methods = Composition(config.build_methods())
    rollouts, critic = made_up_rollouts(policy, noise=0.3), made_up_critic(methods)
    batch = assign_advantages(rollouts.with_tokens(**critic.columns(policy, rollouts, 10**6)), methods)
    weight = policy.parameters[3]
    if nudge:
        weight.data.view(-1)[5] += nudge
    _, loss = accumulate_gradient(policy, batch, methods, config.objective, 10**6, LONGEST, critic)
    gradient = weight.grad.view(-1)[5].item()
    if nudge:
        weight.data.view(-1)[5] -= nudge
    policy.model.zero_grad()
    return loss, gradient


@pytest.mark.parametrize("variant", ["expectation", "sampled"])
def test_the_gradient_of_an_update_matches_finite_differences(variant):
    policy, step = double_policy(), 1e-6
    _, gradient = loss_and_gradient(variant, policy)
    up, down = (loss_and_gradient(variant, policy, sign * step)[0] for sign in (1, -1))
    assert abs(gradient) > 1e-6
    assert gradient == pytest.approx((up - down) / (2 * step), rel=1e-4)


def kl_after_training(beta, steps=12):
    """Mean KL to its start of a policy trained for some steps on one batch against a Q that stays as it is."""
    methods = Composition(make_config({}, {"methods": [{"name": "etpo", "beta": beta}]}).build_methods())
    policy, settings = double_policy(), OptimiserConfig(learning_rate=2e-3)
    rollouts, critic = made_up_rollouts(policy), made_up_critic(methods)
    critic.reference = double_policy()
    optimiser = Optimiser(policy.parameters, settings, steps)
    batch = assign_advantages(rollouts.with_tokens(**critic.columns(policy, rollouts, 10**6)), methods)
    assert batch.tokens.exact_kl.abs().max() < 1e-12
    for _ in range(steps):
        accumulate_gradient(policy, batch, methods, ObjectiveConfig(), 10**6, LONGEST, critic)
        optimiser.step()
    return critic.columns(policy, rollouts, 10**6)["exact_kl"].mean().item()


def test_the_larger_beta_the_nearer_the_policy_stays_to_where_it_started():
    kl = [kl_after_training(beta) for beta in (0.01, 3.0, 300.0)]
    assert kl[0] > 2 * kl[1] > 4 * kl[2] > 0


def config(*methods, **overrides):
    base = {"training.updates_per_rollout": 1, "training.steps": 5000, "evaluation.sets": []}
    return make_config({}, base | {"methods": list(methods)} | {k.replace("__", "."): v for k, v in overrides.items()})


def test_settings_off_the_paper_are_said():
    assert config("etpo").cautions() == []
    assert "denominator" in config("etpo", objective__denominator="sequences").cautions()[0]
    assert "kl_reference" in config("etpo", "kl_reference").cautions()[0]
    assert "one update" in config("etpo", training__updates_per_rollout=4).cautions()[0]
    assert config({"name": "etpo", "variant": "sampled"}, training__updates_per_rollout=4).cautions() == []


def test_a_run_too_short_for_values_to_reach_the_prompt_is_told_how_far_they_get():
    said = config("etpo", training__steps=1000).cautions()
    assert len(said) == 1 and "about 5 tokens in 1000 updates" in said[0]
    assert config("etpo", training__steps=1000, rollout__max_new_tokens=5).cautions() == []
    assert config({"name": "etpo", "polyak": 0.5}, training__steps=1000).cautions() == []


def test_methods_without_effect_on_an_exact_expectation_are_named():
    for other in ("clip_higher", "entropy_adv"):
        assert any(other in said for said in config("etpo", other).cautions())
        sampled = config({"name": "etpo", "variant": "sampled"}, other).cautions()
        assert not any(said.startswith("etpo") for said in sampled)
    assert not any(said.startswith("etpo") for said in config("etpo", "entropy_bonus").cautions())


def test_a_method_that_shapes_advantages_must_stand_behind():
    with pytest.raises(ConfigError, match="put 'etpo' first"):
        config("entropy_adv", "etpo")
