"""The objective, its denominators and its micro-batching against a naive loop over tokens."""

import math
from itertools import chain, combinations, pairwise

import pytest
import torch

from tests.tiny import own_logps, tiny_policy
from workbench.config import make_config
from workbench.methods import Composition
from workbench.methods.kl_reference import kl_estimate
from workbench.rollout import NativeEngine, Stream
from workbench.tables import Rollouts, Table, token_index
from workbench.training.batching import micro_batches, mini_batches
from workbench.training.objective import token_share
from workbench.training.update import accumulate_gradient

PROMPTS = [torch.tensor([1, 2, 3]), torch.tensor([4]), torch.tensor([5, 6, 7, 8, 9]), torch.tensor([2, 2])]


def config(**overrides):
    base = {"rollout.prompts": 4, "rollout.samples": 4, "training.updates_per_rollout": 1, "evaluation.sets": []}
    return make_config({}, base | overrides)


def rollouts_of(policy, off_policy=0.5, seed=0):
    """Rollouts with made-up advantages and an old policy `off_policy` nats away, so that clipping acts."""
    r = NativeEngine(policy).generate(PROMPTS, 4, torch.ones(4), 9, Stream(seed, 1))
    g = torch.Generator().manual_seed(seed)
    advantage = torch.randn(16, generator=g)
    noise = off_policy * torch.randn(len(r.tokens), generator=g)
    tokens = r.tokens.with_columns(
        advantage=r.broadcast_to_tokens(advantage),
        old_logp=r.tokens.rollout_logp + noise,
        ref_logp=r.tokens.rollout_logp + noise.flip(0),
    )
    sequences = r.sequences.with_columns(
        advantage=advantage, reward=advantage, score_temperature=r.sequences.temperature
    )
    return Rollouts(r.prompts, sequences, tokens)


def gradient(policy, r, cfg):
    """The mini-batch after its backward pass, its loss, and the gradients; the policy's own are cleared."""
    methods = Composition(cfg.build_methods())
    batch, loss = accumulate_gradient(policy, r, methods, cfg.objective, cfg.training.micro_batch_tokens, 9)
    gradients = [p.grad.clone() for p in policy.parameters]
    policy.model.zero_grad()
    return batch, loss, gradients


def naive_loss(policy, r, cfg, kl=0.0):
    """The formula of the design, token by token, in Python floats where it can be."""
    o, total = cfg.objective, 0.0
    lengths = r.sequences.length.tolist()
    parts = {k: r.tokens[k].split(lengths) for k in ("token", "old_logp", "ref_logp", "advantage")}
    for s, length in enumerate(lengths):
        prompt = r.prompts[int(r.sequences.prompt[s])]
        logp, _ = own_logps(policy.model, prompt, parts["token"][s])
        for t in range(length):
            advantage = float(parts["advantage"][s][t])
            ratio = (logp[t] - float(parts["old_logp"][s][t])).exp()
            unclipped = ratio * advantage
            clipped = min(max(ratio, 1 - o.clip_low), 1 + o.clip_high) * advantage
            loss = -(unclipped if unclipped < clipped else clipped)
            d = float(parts["ref_logp"][s][t]) - logp[t]
            loss = loss + kl * (d.exp() - d - 1)
            divisor = {"tokens": sum(lengths), "sequences": len(lengths) * length, "constant": len(lengths) * 9}
            total = total + loss / divisor[o.denominator]
    return total


@pytest.mark.parametrize("denominator", ["tokens", "sequences", "constant"])
@pytest.mark.parametrize("bounds", [(0.2, 0.2), (0.1, 0.4), (1.0, math.inf)])
def test_loss_and_gradient_equal_a_naive_loop(denominator, bounds):
    policy = tiny_policy()
    cfg = config(**{"objective.denominator": denominator, "objective.clip_low": bounds[0],
                    "objective.clip_high": bounds[1],
                    "methods": ["grpo", {"name": "kl_reference", "coefficient": 0.1}]})  # fmt: skip
    r = rollouts_of(policy)
    batch, loss, mine = gradient(policy, r, cfg)
    oracle = naive_loss(policy, r, cfg, kl=0.1)
    oracle.backward()
    assert loss == pytest.approx(oracle.item(), abs=1e-6)
    for got, parameter in zip(mine, policy.parameters, strict=True):
        assert (got - parameter.grad).norm() <= 1e-4 * parameter.grad.norm() + 1e-8
    ratio = (batch.tokens.logp - r.tokens.old_logp).exp()
    assert torch.equal(ratio, batch.tokens.ratio)
    if bounds == (0.2, 0.2):
        for sign, outside in ((1, ratio > 1.2), (-1, ratio < 0.8)):
            assert (outside & (r.tokens.advantage * sign > 0)).any(), "the case must exercise clipping"


def test_micro_batches_change_neither_loss_nor_gradient():
    policy = tiny_policy()
    results = [
        gradient(policy, rollouts_of(policy), config(**{"training.micro_batch_tokens": budget}))[1:]
        for budget in (10**6, 64)
    ]
    assert len(micro_batches(rollouts_of(policy), 64)) > 1
    assert results[0][0] == pytest.approx(results[1][0], abs=1e-6)
    for one, many in zip(results[0][1], results[1][1], strict=True):
        torch.testing.assert_close(one, many, rtol=1e-4, atol=1e-7)


def test_on_policy_gradient_is_reinforce_and_the_ratio_is_one():
    policy = tiny_policy()
    r = rollouts_of(policy, off_policy=0.0)
    batch, _, mine = gradient(policy, r, config())
    torch.testing.assert_close(batch.tokens.ratio, torch.ones_like(batch.tokens.ratio), atol=1e-5, rtol=0)
    parts = r.tokens.token.split(r.sequences.length.tolist())
    pairs = zip(r.sequences.prompt.tolist(), parts, r.sequences.advantage, strict=True)
    reinforce = -sum(a * own_logps(policy.model, r.prompts[p], y)[0].sum() for p, y, a in pairs) / len(r.tokens)
    reinforce.backward()
    for got, parameter in zip(mine, policy.parameters, strict=True):
        assert (got - parameter.grad).norm() <= 1e-4 * parameter.grad.norm() + 1e-8


def test_shares_sum_to_what_each_denominator_means():
    r = rollouts_of(tiny_policy())
    r = r.with_tokens(mask=torch.ones_like(r.tokens.sequence, dtype=torch.bool))
    assert token_share(r, "tokens", 9).sum().item() == pytest.approx(1)
    by_sequence = r.sum_by_sequence(token_share(r, "sequences", 9))
    torch.testing.assert_close(by_sequence, torch.full((16,), 1 / 16))
    assert token_share(r, "constant", 9).sum().item() == pytest.approx(len(r.tokens) / (16 * 9))


def test_mini_batches_partition_the_prompts_and_keep_groups_whole():
    r = rollouts_of(tiny_policy())
    parts = mini_batches(r, 2, seed=3, step=5)
    assert sorted(torch.cat(parts).tolist()) == list(range(16))
    groups = [set(r.sequences.group[part].tolist()) for part in parts]
    assert not groups[0] & groups[1]
    assert [len(g) for g in groups] == [2, 2]
    assert any(not torch.equal(a, b) for a, b in zip(parts, mini_batches(r, 2, seed=3, step=6), strict=True)), (
        "the split changes with the step"
    )


def packed_tokens(rollouts, rows):
    part = rollouts.select_sequences(rows)
    return int(part.sequences.length.sum()) + sum(len(part.prompts[p]) for p in part.sequences.prompt.unique().tolist())


@pytest.mark.parametrize("budget", [1, 12, 20, 33, 1000])
def test_micro_batches_respect_the_budget_and_the_order(budget):
    length, prompt = torch.tensor([5, 3, 9, 1, 1, 7, 2, 2]), torch.tensor([0, 0, 0, 1, 1, 2, 2, 2])
    sequence, position = token_index(length)
    r = Rollouts(
        [torch.zeros(n, dtype=torch.int64) for n in (3, 6, 1)],
        Table(prompt=prompt, length=length),
        Table(sequence=sequence, position=position),
    )
    parts = micro_batches(r, budget)
    assert torch.cat(parts).tolist() == list(range(8))
    sizes = [packed_tokens(r, part) for part in parts]
    assert all(size <= budget or len(part) == 1 for size, part in zip(sizes, parts, strict=True))
    # Against all ways to cut eight rows: no fewer parts keep the budget, and none as many have a smaller largest one.
    ways = [
        [packed_tokens(r, torch.arange(a, b)) for a, b in pairwise((0, *cuts, 8))]
        for cuts in chain.from_iterable(combinations(range(1, 8), count) for count in range(8))
    ]
    fitting = [way for way in ways if max(way) <= max(budget, *(packed_tokens(r, torch.tensor([i])) for i in range(8)))]
    if budget > 12:
        assert len(parts) == min(map(len, fitting))
        assert max(sizes) == min(max(way) for way in fitting if len(way) == len(parts))


def test_k3_is_an_unbiased_and_non_negative_estimate_of_the_kl():
    logits, other = torch.randn(2, 9, dtype=torch.float64)
    logp, ref = logits.log_softmax(-1), other.log_softmax(-1)
    k3 = kl_estimate(logp, ref, "k3")
    assert (k3 >= 0).all()
    exact = (logp.exp() * (logp - ref)).sum()
    torch.testing.assert_close((logp.exp() * k3).sum(), exact)
