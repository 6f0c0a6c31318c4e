"""The critic: what it starts as, what it scores, what one update does to it, and that a checkpoint holds all of it."""

import copy

import pytest
import torch

import workbench as wb
from tests.methods.made_up import double_policy, made_up_rollouts
from workbench.methods.terms import CriticConfig
from workbench.policy.packing import pack
from workbench.store import Run
from workbench.training import train_run
from workbench.training.critic import Critic, sampled_values
from workbench.training.trainer import Trainer

SOFT = CriticConfig("vocabulary", learning_rate=1e-3, max_grad_norm=10.0, huber=10.0, polyak=0.9)
VALUE = CriticConfig("value", learning_rate=1e-3, max_grad_norm=10.0, huber=10.0)


@pytest.fixture(scope="module")
def policy():
    return double_policy()


@pytest.fixture(scope="module")
def rollouts(policy):
    r = made_up_rollouts(policy)
    g = torch.Generator().manual_seed(0)
    return r.with_tokens(critic_target=torch.randn(len(r.tokens), generator=g, dtype=torch.float64))


def critic_of(policy, config, seed=None):
    """A critic, with an output layer drawn at random rather than zero where a seed is given."""
    critic = Critic(policy, config, 10, double_policy(seed=1))
    if seed is not None:
        draw = torch.Generator().manual_seed(seed)
        for net in (critic.net, critic.target):
            if net is not None:
                weight = net.model.get_output_embeddings().weight
                weight.data.copy_(torch.randn(weight.shape, generator=draw, dtype=weight.dtype))
    return critic


def naive_values(net, rollouts):
    """Output of a critic's model for every token of the vocabulary (or one value), sequence by sequence [N, V]."""
    rows = []
    for s, tokens in enumerate(rollouts.tokens.token.split(rollouts.sequences.length.tolist())):
        prompt = rollouts.prompts[int(rollouts.sequences.prompt[s])]
        ids = torch.cat([prompt, tokens]).unsqueeze(0)
        rows.append(net.model(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 : -1].detach())
    return torch.cat(rows)


@pytest.mark.parametrize("config", [SOFT, VALUE])
def test_it_starts_at_zero_and_shares_nothing_with_the_policy(policy, rollouts, config):
    critic = critic_of(policy, config)
    before = copy.deepcopy(policy.model.state_dict())
    columns = critic.columns(policy, rollouts, 10**6)
    assert columns["q" if config is SOFT else "value"].eq(0).all()
    critic.update(rollouts, 10**6)
    assert all(torch.equal(value, before[name]) for name, value in policy.model.state_dict().items())
    assert critic.columns(policy, rollouts, 10**6)["q" if config is SOFT else "value"].ne(0).any()


def test_soft_columns_equal_the_naive_formulas(policy, rollouts):
    critic = critic_of(policy, SOFT, seed=4)
    columns = critic.columns(policy, rollouts, budget=64)
    logp, logr = (naive_values(p, rollouts).log_softmax(-1) for p in (policy, critic.reference))
    q, slow = naive_values(critic.net, rollouts), naive_values(critic.target, rollouts)
    expected = {
        "q": q.gather(1, rollouts.tokens.token.unsqueeze(1)).squeeze(1),
        "expected_q": (logp.exp() * q).sum(-1),
        "target_expected_q": (logp.exp() * slow).sum(-1),
        "exact_kl": (logp.exp() * (logp - logr)).sum(-1),
    }
    assert columns.keys() == expected.keys()
    for name, column in expected.items():
        torch.testing.assert_close(columns[name], column, rtol=1e-9, atol=1e-9)


def test_values_are_of_the_prefix_before_the_token(policy, rollouts):
    critic = critic_of(policy, VALUE, seed=4)
    got = critic.columns(policy, rollouts, budget=64)["value"]
    torch.testing.assert_close(got, naive_values(critic.net, rollouts).squeeze(1), rtol=1e-9, atol=1e-9)


def test_current_columns_are_those_of_the_rollout_while_the_policy_stands_still(policy, rollouts):
    critic = critic_of(policy, SOFT, seed=4)
    packed = pack(rollouts)
    heat = rollouts.broadcast_to_tokens(rollouts.sequences.score_temperature)
    now = critic.current(policy, policy.response_hidden(packed), packed, heat)
    then = critic.columns(policy, rollouts, 10**6)
    torch.testing.assert_close(now["current_kl"].detach(), then["exact_kl"])
    torch.testing.assert_close(now["current_expected_q"].detach(), then["expected_q"])
    assert now["current_kl"].requires_grad and not then["exact_kl"].requires_grad


@pytest.mark.parametrize("delta", [0.2, 10.0])
@pytest.mark.parametrize("head", ["vocabulary", "value"])
def test_the_update_is_adamw_on_the_mean_huber_loss(policy, rollouts, head, delta):
    """Gradient by autograd through the model's own forward; Huber written out: e²/2 below δ, δ(|e| − δ/2) above."""
    config = CriticConfig(head, learning_rate=1e-3, max_grad_norm=1e9, huber=delta, polyak=0.9)
    critic = critic_of(policy, config, seed=4)
    twin = copy.deepcopy(critic.net)
    given = []
    for s, tokens in enumerate(rollouts.tokens.token.split(rollouts.sequences.length.tolist())):
        prompt = rollouts.prompts[int(rollouts.sequences.prompt[s])]
        out = twin.model(input_ids=torch.cat([prompt, tokens]).unsqueeze(0), use_cache=False).logits[0]
        chosen = tokens if head == "vocabulary" else torch.zeros_like(tokens)
        given.append(out[len(prompt) - 1 : -1].gather(1, chosen.unsqueeze(1)).squeeze(1))
    error = (rollouts.tokens.critic_target - torch.cat(given)).abs()
    loss = torch.where(error <= delta, 0.5 * error**2, delta * (error - 0.5 * delta)).mean()
    adamw = torch.optim.AdamW(twin.parameters, lr=1e-3, weight_decay=0.0)
    loss.backward()
    norm = torch.cat([p.grad.flatten() for p in twin.parameters]).norm()
    adamw.step()
    slow = {name: value.clone() for name, value in critic.target.model.state_dict().items()}
    got = critic.update(rollouts, budget=64)
    assert got == pytest.approx({"critic/loss": loss.item(), "critic/grad_norm": norm.item()}, rel=1e-9)
    for name, value in critic.net.model.state_dict().items():
        # AdamW divides by √v: where a gradient is nearly zero, its rounding decides part of the step.
        torch.testing.assert_close(value, twin.model.state_dict()[name], rtol=1e-6, atol=1e-6)
        moved = 0.9 * slow[name] + 0.1 * value
        torch.testing.assert_close(critic.target.model.state_dict()[name], moved, rtol=1e-12, atol=1e-12)


def test_repeated_updates_fit_the_targets(policy, rollouts):
    critic = critic_of(policy, CriticConfig("value", learning_rate=3e-3, max_grad_norm=1.0, huber=10.0))
    target = rollouts.broadcast_to_tokens(rollouts.sequences.reward)
    batch = rollouts.with_tokens(critic_target=target)
    losses = [critic.update(batch, 10**6)["critic/loss"] for _ in range(40)]
    assert losses[-1] < 0.2 * losses[0]


def test_sampled_values_read_one_row_per_token():
    g = torch.Generator().manual_seed(0)
    hidden, weight = (torch.randn(n, 5, generator=g, dtype=torch.float64) for n in (6, 9))
    token = torch.tensor([0, 8, 3, 3, 1, 0])
    expected = (hidden @ weight.T).gather(1, token.unsqueeze(1)).squeeze(1)
    torch.testing.assert_close(sampled_values(hidden, weight, token), expected)
    torch.testing.assert_close(sampled_values(hidden, weight[:1], token), hidden @ weight[0])


def test_a_restored_critic_goes_on_identically(policy, rollouts, tmp_path):
    one, other = critic_of(policy, SOFT, seed=4), critic_of(policy, SOFT)
    one.update(rollouts, 10**6)
    one.save(tmp_path / "critic.safetensors")
    other.restore(tmp_path / "critic.safetensors", updates=1)
    assert one.update(rollouts, 10**6) == other.update(rollouts, 10**6)
    for net, twin in ((one.net, other.net), (one.target, other.target)):
        assert all(torch.equal(value, twin.tensors()[name]) for name, value in net.tensors().items())
    with pytest.raises(ValueError, match="does not fit"):
        critic_of(policy, VALUE).restore(tmp_path / "critic.safetensors", updates=1)


@pytest.mark.parametrize("bad", [float("inf"), float("nan")])
def test_a_non_finite_target_stops_before_a_weight_is_touched(policy, rollouts, bad):
    target = rollouts.tokens.critic_target.clone()
    target[3] = bad
    critic = critic_of(policy, VALUE, seed=4)
    before = {name: value.clone() for name, value in critic.net.model.state_dict().items()}
    with pytest.raises(FloatingPointError, match="critic_learning_rate"):
        critic.update(rollouts.with_tokens(critic_target=target), 10**6)
    assert all(torch.equal(value, before[name]) for name, value in critic.net.model.state_dict().items())


def test_a_run_without_a_critic_has_none():
    assert Trainer(wb.preset("smoke")).critic is None


def test_a_crashed_run_ends_bit_identical_the_critic_included(tmp_path):
    overrides = {"training.steps": 4, "rollout.prompts": 2, "rollout.samples": 2, "evaluation.sets": []}
    config = wb.preset("smoke", {"methods": ["etpo"]} | overrides)

    class Crash(Exception):
        pass

    def crash_after_three(line):
        if line.startswith("step    3/4"):
            raise Crash

    with pytest.raises(Crash):
        train_run(config, tmp_path / "crashed", log=crash_after_three)
    crashed, whole = (train_run(config, tmp_path / name, log=lambda line: None) for name in ("crashed", "whole"))
    last = Run(whole).checkpoints[4].relative_to(whole)
    for name in ("critic.safetensors", "model.safetensors", "optimiser.safetensors", "state.json"):
        assert (crashed / last / name).read_bytes() == (whole / last / name).read_bytes(), name
    assert (crashed / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
