"""The real vLLM, in a process of its own: what it samples is what the trainer's weights say, also after updates."""

import os
import signal

import pytest
import torch

from workbench.policy.model import load_policy, policy_from
from workbench.policy.packing import pack
from workbench.rollout import EngineDied, NativeEngine, Stream, VllmEngine
from workbench.sections import PolicyConfig, VllmConfig
from workbench.tables import NonFiniteError

pytestmark = pytest.mark.vllm
SMALL = VllmConfig(cache_gib=0.25, max_sequences=64)
TEXTS = ("2+2*3-1+4=", "7-3=", "9*9-80*1=")
GREEDY = 1e-6
"""A nucleus that holds the likeliest token alone, to both engines."""


@pytest.fixture(scope="module")
def policy():
    return load_policy()


@pytest.fixture(scope="module")
def engine(policy):
    engine = VllmEngine(policy, SMALL)
    yield engine
    engine.close()


def prompts(policy):
    return [policy.encode(text) for text in TEXTS]


def sample(engine, samples=8, step=1, temperature=(1.0, 1.0, 1.0), **options):
    asked = prompts(engine.policy)
    return engine.generate(asked, samples, torch.tensor(temperature), 40, Stream(0, step), **options)


@torch.no_grad()
def scored(policy, rollouts):
    return policy.token_statistics(pack(rollouts), rollouts.broadcast_to_tokens(rollouts.sequences.temperature)).logp


def move(policy, seed, scale):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in policy.parameters:
            parameter.add_(torch.randn(parameter.shape, generator=generator) * scale)


def test_log_probs_are_the_trainers_at_each_prompts_temperature(engine):
    r = sample(engine, temperature=(0.5, 1.0, 2.0))
    torch.testing.assert_close(r.tokens.rollout_logp, scored(engine.policy, r), rtol=1e-3, atol=1e-3)
    assert r.sequences.temperature.unique().tolist() == [0.5, 1.0, 2.0]


def test_alternatives_are_the_likeliest_of_what_was_sampled_from(engine):
    r = sample(engine, temperature=(0.5, 1.0, 2.0), alternatives=3)
    top = torch.stack([r.tokens[f"top{rank}_logp"] for rank in (1, 2, 3)])
    assert (top[:-1] >= top[1:]).all() and (top.exp().sum(0) <= 1 + 1e-5).all()
    drawn = r.tokens.token == r.tokens.top1_token
    assert 0 < drawn.sum() < len(drawn) and torch.equal(r.tokens.rollout_logp[drawn], r.tokens.top1_logp[drawn])
    assert (r.tokens.rollout_logp <= r.tokens.top1_logp).all()
    likeliest = r.with_tokens(token=r.tokens.top1_token)
    first = r.tokens.position == 0  # later the past would differ
    torch.testing.assert_close(r.tokens.top1_logp[first], scored(engine.policy, likeliest)[first], rtol=1e-3, atol=1e-3)


def test_the_tables_are_those_of_the_native_engine(engine):
    r, native = (
        sample(engine),
        NativeEngine(engine.policy).generate(prompts(engine.policy), 8, torch.ones(3), 40, Stream(0, 1)),
    )
    assert set(r.sequences) == set(native.sequences)
    assert set(native.tokens) - set(r.tokens) == {"entropy"}
    for table, other in ((r.sequences, native.sequences), (r.tokens, native.tokens)):
        assert all(table[name].dtype == other[name].dtype for name in table)
    assert torch.equal(r.sequences.prompt, native.sequences.prompt)
    ends = r.tokens.token[r.sequences.length.cumsum(0) - 1]
    assert torch.equal(torch.isin(ends, torch.tensor(engine.policy.eos_ids)), r.sequences.finished)
    assert bool(r.sequences.finished.any())
    inner = r.tokens.token[r.tokens.position < r.broadcast_to_tokens(r.sequences.length) - 1]
    assert not torch.isin(inner, torch.tensor(engine.policy.eos_ids)).any()


def test_samples_belong_to_run_step_prompt_and_sample(engine):
    one, again, later = sample(engine), sample(engine), sample(engine, step=2)
    assert torch.equal(one.tokens.token, again.tokens.token)
    assert torch.equal(one.tokens.rollout_logp, again.tokens.rollout_logp)
    assert not torch.equal(one.sequences.length, later.sequences.length)
    first = [part.tolist() for part in one.tokens.token.split(one.sequences.length.tolist())][:8]
    assert len({tuple(part) for part in first}) > 4


def test_more_prompts_than_vllm_reads_at_once_are_sampled_from(engine):
    """With seeds, its CPU build fails at a prompt that it reads in two parts."""
    long = [torch.arange(100) % 10 + 5 + number % 3 for number in range(64)]
    r = engine.generate(long, 1, torch.ones(64), 8, Stream(0, 1))
    torch.testing.assert_close(r.tokens.rollout_logp, scored(engine.policy, r), rtol=1e-3, atol=1e-3)


def test_what_may_become_too_long_is_refused_not_cut_short(engine):
    with pytest.raises(ValueError, match=r"10 tokens .* up to 247 .* the 256 that vLLM has room for"):
        engine.generate([torch.arange(5, 15)], 1, torch.ones(1), 247, Stream(0, 1))
    assert len(engine.generate([torch.arange(5, 15)], 1, torch.ones(1), 246, Stream(0, 1)).sequences) == 1


def test_it_does_not_sleep_without_a_gpu(policy):
    with pytest.raises(ValueError, match=r"rollout\.vllm\.sleep .* there is no GPU"):
        VllmEngine(policy, SMALL.model_copy(update={"sleep": True}))


def test_changed_weights_are_sampled_from_and_greedy_tokens_are_the_native_engines(engine):
    before = sample(engine, top_p=GREEDY)
    for round_, scale in enumerate((0.02, 0.03)):
        move(engine.policy, round_, scale)
        engine.weights_changed()
        r = sample(engine)
        torch.testing.assert_close(r.tokens.rollout_logp, scored(engine.policy, r), rtol=1e-3, atol=1e-3)
        greedy = sample(engine, samples=1, top_p=GREEDY)
        native = NativeEngine(engine.policy).generate(
            prompts(engine.policy), 1, torch.ones(3), 40, Stream(0, 1), top_p=GREEDY
        )
        assert torch.equal(greedy.tokens.token, native.tokens.token)
        torch.testing.assert_close(
            greedy.tokens.rollout_logp, torch.zeros_like(greedy.tokens.rollout_logp), atol=1e-5, rtol=0
        )
    assert not torch.equal(before.tokens.token, sample(engine, top_p=GREEDY).tokens.token)


def test_broken_logits_name_the_request(engine):
    weight = engine.policy.model.get_decoder().norm.weight
    kept = weight.detach().clone()
    with torch.no_grad():
        weight.fill_(float("nan"))
    engine.weights_changed()
    with pytest.raises((NonFiniteError, EngineDied), match=r"prompt 0, sample 0, position 0|non-finite"):
        sample(engine)
    with torch.no_grad():
        weight.copy_(kept)
    engine.weights_changed()
    r = sample(engine)
    torch.testing.assert_close(r.tokens.rollout_logp, scored(engine.policy, r), rtol=1e-3, atol=1e-3)


def test_death_is_told_and_the_next_sampling_starts_anew(engine):
    r = sample(engine)
    process, folder = engine.process, engine.folder
    os.kill(process.pid, signal.SIGKILL)
    with pytest.raises(EngineDied, match="signal SIGKILL"):
        sample(engine)
    assert not folder.exists()
    again = sample(engine)
    assert engine.process.pid != process.pid
    assert torch.equal(again.tokens.token, r.tokens.token)


def test_adapters_in_bfloat16_are_synced_without_touching_the_base():
    config = PolicyConfig(precision="bfloat16", weights="bfloat16", lora={"rank": 4, "alpha": 8.0})
    policy = policy_from(config, "cpu", 0)
    base = {name: p.detach().clone() for name, p in policy.model.named_parameters() if "lora_" not in name}
    engine = VllmEngine(policy, SMALL)
    gaps = []
    try:
        for cycle in range(4):
            r = sample(engine)
            gaps.append((r.tokens.rollout_logp - scored(policy, r)).abs().mean().item())
            with torch.no_grad():
                off = scored(policy.without_adapters(), r)
            if cycle:
                assert (r.tokens.rollout_logp - off).abs().mean() > 5 * gaps[-1]
            move(policy, cycle, 0.05)
            engine.weights_changed()
    finally:
        engine.close()
    assert max(gaps) < 0.03, gaps  # bfloat16 keeps 8 bits; a wrong adapter is an order of magnitude off
    assert all(torch.equal(p, base[name]) for name, p in policy.model.named_parameters() if name in base)
