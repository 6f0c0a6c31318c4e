"""The packed, prompt-sharing forward against the model's own forward on each sequence alone."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import Gemma2Config, MistralConfig

from tests.tiny import own_logps, tiny_model, tiny_policy, tiny_tokenizer
from workbench.policy import attention
from workbench.policy.model import Policy, load_policy
from workbench.policy.packing import pack
from workbench.tables import Rollouts, Table, token_index


def batch(prompt_lengths=(3, 7, 5), response_lengths=((4, 1, 9), (6, 2), (1, 1)), vocab=13, seed=0):
    g = torch.Generator().manual_seed(seed)
    prompts = [torch.randint(vocab, (n,), generator=g) for n in prompt_lengths]
    prompt = torch.tensor([i for i, lengths in enumerate(response_lengths) for _ in lengths])
    length = torch.tensor([n for lengths in response_lengths for n in lengths])
    sequence, position = token_index(length)
    token = torch.randint(vocab, (len(sequence),), generator=g)
    return Rollouts(
        prompts,
        Table(prompt=prompt, group=prompt, length=length),
        Table(sequence=sequence, position=position, token=token),
    )


def responses(rollouts):
    parts = rollouts.tokens.token.split(rollouts.sequences.length.tolist())
    return [(rollouts.prompts[p], part) for p, part in zip(rollouts.sequences.prompt.tolist(), parts, strict=True)]


@pytest.mark.parametrize("architecture", ["qwen2", "qwen3", "llama"])
@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_log_probs_and_entropies_equal_the_models_own(architecture, temperature):
    policy, rollouts = tiny_policy(architecture), batch()
    with torch.no_grad():
        got = policy.token_statistics(pack(rollouts), torch.full((len(rollouts.tokens),), temperature))
        expected = [own_logps(policy.model, *pair, temperature) for pair in responses(rollouts)]
    torch.testing.assert_close(got.logp.double(), torch.cat([e[0] for e in expected]), atol=1e-5, rtol=0)
    torch.testing.assert_close(got.entropy.double(), torch.cat([e[1] for e in expected]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("short", [attention.SHORT, 1], ids=["one bucket", "many buckets"])
@pytest.mark.parametrize("lengths", [((4, 1, 9), (6, 2), (1, 1)), ((5, 5), (5, 5), (5, 5))])
def test_gradients_equal_those_of_a_naive_loop(lengths, short, monkeypatch):
    monkeypatch.setattr(attention, "SHORT", short)
    rollouts = batch((4, 4, 4) if lengths[0] == (5, 5) else (3, 7, 5), lengths)
    model = tiny_model().double()
    policy = Policy(model, tiny_tokenizer())
    policy.precision = torch.float64
    scale = torch.randn(2, len(rollouts.tokens), dtype=torch.float64)
    out = policy.token_statistics(pack(rollouts), torch.ones(len(rollouts.tokens), dtype=torch.float64))
    (scale[0] * out.logp + scale[1] * out.entropy).sum().backward()
    packed = [p.grad.clone() for p in policy.parameters]
    model.zero_grad()
    pairs = [own_logps(model, *pair) for pair in responses(rollouts)]
    (scale[0] * torch.cat([p[0] for p in pairs]) + scale[1] * torch.cat([p[1] for p in pairs])).sum().backward()
    for mine, parameter in zip(packed, policy.parameters, strict=True):
        # transformers' RMSNorm works in fp32 inside an fp64 model: that rounding is all that may differ
        assert (mine - parameter.grad).norm() <= 1e-6 * parameter.grad.norm()


def test_packing_order_and_company_change_nothing():
    policy, rollouts = tiny_policy(), batch()
    with torch.no_grad():
        together = policy.token_statistics(pack(rollouts), torch.ones(len(rollouts.tokens))).logp
        order = torch.tensor([5, 0, 3, 6, 2, 1, 4])
        shuffled = rollouts.select_sequences(order)
        again = policy.token_statistics(pack(shuffled), torch.ones(len(shuffled.tokens))).logp
        for place, row in enumerate(order.tolist()):
            mine = again[shuffled.tokens.sequence == place]
            alone = rollouts.select_sequences(torch.tensor([row]))
            by_itself = policy.token_statistics(pack(alone), torch.ones(len(alone.tokens))).logp
            expected = together[rollouts.tokens.sequence == row]
            torch.testing.assert_close(mine, expected, atol=1e-5, rtol=0)
            torch.testing.assert_close(by_itself, expected, atol=1e-5, rtol=0)


@given(st.lists(st.integers(1, 900), min_size=1, max_size=60))
def test_buckets_hold_every_length_once_within_a_factor_of_two(lengths):
    lengths = torch.tensor(lengths)
    buckets = attention.length_buckets(lengths)
    assert sorted(torch.cat(buckets).tolist()) == list(range(len(lengths)))
    for members in buckets:
        assert lengths[members].max() < 2 * lengths[members].clamp(min=attention.SHORT).min()
    padded = sum(len(members) * int(lengths[members].max()) for members in buckets)
    assert padded < 2 * int(lengths.clamp(min=attention.SHORT).sum())


def test_both_attention_kernels_agree(monkeypatch):
    policy, rollouts = tiny_policy(), batch()
    ones = torch.ones(len(rollouts.tokens))
    with torch.no_grad():
        products = policy.token_statistics(pack(rollouts), ones).logp
        monkeypatch.setattr(attention, "SHORT_CONTEXT", 0)
        sdpa = policy.token_statistics(pack(rollouts), ones).logp
    torch.testing.assert_close(products, sdpa, atol=1e-5, rtol=0)


def test_an_empty_response_is_refused():
    rollouts = batch(response_lengths=((4, 0), (1,), (1,)))
    with pytest.raises(ValueError, match="empty"):
        pack(rollouts)


def saved(model, folder):
    model.save_pretrained(folder)
    tiny_tokenizer(model.config.vocab_size).save_pretrained(folder)
    return str(folder)


def test_a_saved_model_loads_and_passes_the_self_check(tmp_path):
    policy = load_policy(saved(tiny_model(), tmp_path))
    assert policy.eos_ids == (12,)


def test_a_soft_capped_head_is_refused(tmp_path):
    from transformers import Gemma2ForCausalLM

    config = Gemma2Config(
        vocab_size=13, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, eos_token_id=12, bos_token_id=None, pad_token_id=0,
        final_logit_softcapping=0.5, layer_types=["full_attention"],
    )  # fmt: skip
    torch.manual_seed(0)
    model = Gemma2ForCausalLM(config)
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(50)
    with pytest.raises(ValueError, match="not supported"):
        load_policy(saved(model, tmp_path))


def test_sliding_window_attention_is_refused(tmp_path):
    from transformers import MistralForCausalLM

    config = MistralConfig(
        vocab_size=13, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, eos_token_id=12, bos_token_id=None, sliding_window=4,
    )  # fmt: skip
    with pytest.raises(ValueError, match="sliding-window"):
        load_policy(saved(MistralForCausalLM(config), tmp_path))


def test_a_missing_model_is_said_so(tmp_path):
    with pytest.raises(ValueError, match=r"policy\.model"):
        load_policy(str(tmp_path / "nothing"))
