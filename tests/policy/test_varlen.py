"""Packed attention by variable-length sequences against the padded one, with FlashAttention's definition on a CPU."""

import pytest
import torch

from tests.tiny import tiny_policy
from workbench.policy import model as model_module
from workbench.policy.attention import PackedAttention
from workbench.policy.packing import pack
from workbench.policy.varlen import VarlenAttention
from workbench.rollout import NativeEngine, Stream

PROMPTS = [torch.tensor([1, 2, 3]), torch.tensor([4]), torch.tensor([5, 6, 7, 8, 9])]


def by_definition(query, key, value, start_q, start_k, longest_q, longest_k, *, scale):
    """Each sequence by itself; queries and keys are counted from the end."""
    bounds = zip(start_q[:-1].tolist(), start_q[1:].tolist(), start_k[:-1].tolist(), start_k[1:].tolist(), strict=True)
    out = []
    for q0, q1, k0, k1 in bounds:
        assert 0 < q1 - q0 <= longest_q and 0 < k1 - k0 <= longest_k
        q, k, v = query[q0:q1], key[k0:k1], value[k0:k1]
        k, v = (x.repeat_interleave(q.shape[1] // k.shape[1], dim=1) for x in (k, v))
        scores = torch.einsum("qhd,khd->hqk", q, k) * scale
        hidden = torch.ones(len(q), len(k), dtype=torch.bool).triu(len(k) - len(q) + 1)
        out.append(torch.einsum("hqk,khd->qhd", scores.masked_fill(hidden, float("-inf")).softmax(-1), v))
    assert start_q[-1] == len(query) and start_k[-1] == len(key)
    return torch.cat(out)


@pytest.fixture(scope="module")
def batch():
    r = NativeEngine(tiny_policy()).generate(PROMPTS, 24, torch.full((3,), 3.0), 9, Stream(0, 1))
    assert (r.sequences.length == 1).any() and (r.sequences.length > 4).any()
    return pack(r)


def test_a_layer_and_its_gradients_are_those_of_padded_attention(batch):
    generator = torch.Generator().manual_seed(0)
    rows = len(batch.input_ids)
    given = [torch.randn(1, heads, rows, 8, generator=generator, dtype=torch.float64) for heads in (4, 2, 2)]
    weight = torch.randn(1, rows, 4, 8, generator=generator, dtype=torch.float64)
    found = []
    for context in (PackedAttention(batch, torch.float64), VarlenAttention(batch, by_definition)):
        leaves = [x.clone().requires_grad_() for x in given]
        out = context.attend(0, *leaves, 0.3)
        (out * weight).sum().backward()
        found.append([out, *(leaf.grad for leaf in leaves)])
    for padded, varlen in zip(*found, strict=True):
        torch.testing.assert_close(varlen, padded, rtol=1e-12, atol=1e-12)


def test_a_policy_says_the_same_with_either(batch, monkeypatch):
    policy, one = tiny_policy("qwen3"), torch.ones(len(batch.target))
    with torch.no_grad():
        padded = policy.token_statistics(batch, one)
        monkeypatch.setattr(
            model_module.attention, "PackedAttention", lambda batch, dtype: VarlenAttention(batch, by_definition)
        )
        varlen = policy.token_statistics(batch, one)
    torch.testing.assert_close(varlen.logp, padded.logp, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(varlen.entropy, padded.entropy, rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="FlashAttention needs an NVIDIA GPU")
def test_flash_attention_is_its_definition(batch):
    from workbench.policy.varlen import flash

    generator = torch.Generator().manual_seed(0)
    rows = len(batch.input_ids)
    given = [torch.randn(1, heads, rows, 64, generator=generator).bfloat16() for heads in (4, 2, 2)]
    exact = VarlenAttention(batch, by_definition).attend(0, *(x.double() for x in given), 0.125)
    context = VarlenAttention(batch, flash)
    context.key_rows = context.key_rows.cuda()
    context.lengths = (*(x.cuda() for x in context.lengths[:2]), *context.lengths[2:])
    ours = context.attend(0, *(x.cuda() for x in given), 0.125)
    torch.testing.assert_close(ours.cpu().double(), exact, rtol=2e-2, atol=2e-2)
