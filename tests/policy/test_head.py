"""The fused head against naive fp64 formulas and finite differences."""

import math

import pytest
import torch

from workbench.policy.head import distribution, fused_head


def inputs(n=23, width=8, vocab=17, dtype=torch.float64, bias=False):
    g = torch.Generator().manual_seed(0)
    hidden, weight = (
        torch.randn(n, width, generator=g, dtype=dtype),
        torch.randn(vocab, width, generator=g, dtype=dtype),
    )
    target = torch.randint(vocab, (n,), generator=g)
    temperature = 0.5 + torch.rand(n, generator=g, dtype=dtype)
    return hidden, weight, target, temperature, torch.randn(vocab, generator=g, dtype=dtype) if bias else None


def naive(hidden, weight, target, temperature, bias):
    logits = torch.nn.functional.linear(hidden, weight, bias) / temperature[:, None]
    logp = logits - logits.logsumexp(-1, keepdim=True)
    p = logp.exp()
    chosen = logp.gather(1, target[:, None]).squeeze(1)
    return chosen, -(p * logp).sum(-1), (p**2).sum(-1), (p**2 * logp).sum(-1)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("elements", [(1, 1), (5 * 17, 2 * 17), (10**6, 3 * 17), (10**6, 10**6)])
def test_values_equal_the_naive_formulas_for_every_chunk_and_block(bias, elements):
    hidden, weight, target, temperature, b = inputs(bias=bias)
    got = fused_head(hidden, weight, target, temperature, b, with_sums=True, elements=elements)
    expected = naive(hidden, weight, target, temperature, b)
    for mine, oracle in zip((got.logp, got.entropy, got.sum_p2, got.sum_p2_logp), expected, strict=True):
        torch.testing.assert_close(mine, oracle, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("bias", [False, True])
def test_gradients_of_logp_and_entropy_match_finite_differences(bias):
    hidden, weight, target, temperature, b = inputs(n=6, bias=bias)
    leaves = [x.requires_grad_() for x in (hidden, weight, b) if x is not None]

    def both(hidden, weight, b=None):
        out = fused_head(hidden, weight, target, temperature, b, elements=(3 * 17, 2 * 17))
        return out.logp, out.entropy

    assert torch.autograd.gradcheck(both, leaves)


def test_gradients_equal_autograd_through_the_naive_formulas():
    hidden, weight, target, temperature, b = inputs(bias=True)
    mix = torch.randn(2, len(target), dtype=torch.float64)
    grads = []
    for function in (fused_head, naive):
        leaves = [x.clone().requires_grad_() for x in (hidden, weight, b)]
        out = function(leaves[0], leaves[1], target, temperature, leaves[2])
        logp, entropy = (out.logp, out.entropy) if function is fused_head else out[:2]
        (mix[0] * logp + mix[1] * entropy).sum().backward()
        grads.append([leaf.grad for leaf in leaves])
    for mine, oracle in zip(*grads, strict=True):
        torch.testing.assert_close(mine, oracle, rtol=1e-10, atol=1e-12)


def test_gradients_of_the_log_prob_alone_and_of_what_is_not_frozen():
    hidden, weight, target, temperature, b = inputs(bias=True)
    out = fused_head(hidden.requires_grad_(), weight, target, temperature, b, elements=(3 * 17, 2 * 17))
    out.logp.sum().backward()
    other = hidden.detach().clone().requires_grad_()
    naive(other, weight, target, temperature, b)[0].sum().backward()
    torch.testing.assert_close(hidden.grad, other.grad, rtol=1e-10, atol=1e-12)
    assert weight.grad is None and b.grad is None


def test_the_gradient_of_a_near_certain_token_keeps_its_digits():
    hidden, weight = torch.tensor([[16.0, 0.0]], requires_grad=True), torch.eye(2)
    target, one = torch.tensor([0]), torch.ones(1)
    fused_head(hidden, weight, target, one).logp.sum().backward()
    wide = hidden.detach().double().requires_grad_()
    fused_head(wide, weight.double(), target, one.double()).logp.sum().backward()
    torch.testing.assert_close(hidden.grad.double(), wide.grad, rtol=1e-6, atol=0)


def test_entropy_keeps_its_digits_in_the_collapsed_regime():
    """fp32 entropy against fp64 of the same logits, vocabulary 152k, each token, from 10 nats down to below 1e-4."""
    g = torch.Generator().manual_seed(1)
    seen = []
    for gap in (4.0, 8.0, 16.0, 20.0, 23.0, 26.0):
        logits = torch.randn(8, 151_936, generator=g) * 2
        logits[:, 77] += gap
        logp = logits.double().log_softmax(-1)
        exact = -(logp.exp() * logp).sum(-1)
        _, _, _, entropy = distribution(logits.clone())
        assert ((entropy.double() - exact).abs() / exact).max() < 5e-7
        seen += exact.tolist()
    assert min(seen) < 1e-4 and max(seen) > 9.8
    decades = {math.floor(math.log10(value)) for value in seen}
    assert decades >= {-4, -3, -2, -1, 0}


def test_cancelling_form_would_fail_that_test():
    """Why the form matters: logsumexp − Σ p·z in fp32 loses more than 1e-4 where the head keeps 1e-6."""
    logits = torch.randn(8, 151_936, generator=torch.Generator().manual_seed(1)) * 2
    logits[:, 77] += 23
    logp = logits.double().log_softmax(-1)
    exact = -(logp.exp() * logp).sum(-1)
    cancelling = logits.logsumexp(-1) - (logits.softmax(-1) * logits).sum(-1)
    assert ((cancelling.double() - exact).abs() / exact).max() > 1e-4


def test_first_order_entropy_change_of_one_logit_step():
    """dH = −α(S − E[S]) with the sums the head returns (arXiv 2602.03392, theorem 3.3), by finite differences."""
    hidden, weight, target, temperature, _ = inputs()
    out = fused_head(hidden, weight, target, torch.ones_like(temperature), with_sums=True)
    logits = hidden @ weight.T
    p, alpha = logits.softmax(-1), 1e-6
    onehot = torch.nn.functional.one_hot(target, weight.shape[0])
    moved = logits + alpha * (onehot - p)
    change = distribution(moved)[3] - out.entropy
    s = out.logp.exp() * (out.entropy + out.logp)
    expected = -alpha * (s - (out.entropy * out.sum_p2 + out.sum_p2_logp))
    torch.testing.assert_close(change, expected, rtol=1e-4, atol=1e-11)


def test_bfloat16_inputs_are_worked_on_in_float32():
    hidden, weight, target, temperature, _ = inputs(dtype=torch.float32)
    narrow_hidden, narrow_weight = hidden.bfloat16().requires_grad_(), weight.bfloat16()
    out = fused_head(narrow_hidden, narrow_weight, target, temperature)
    expected = naive(narrow_hidden.double(), narrow_weight.double(), target, temperature.double(), None)
    torch.testing.assert_close(out.logp.double(), expected[0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(out.entropy.double(), expected[1], rtol=1e-5, atol=1e-5)
    out.logp.sum().backward()
    assert narrow_hidden.grad.dtype == torch.bfloat16
