"""The soft head against naive fp64 formulas, finite differences and the closed form of its optimum."""

import pytest
import torch

from workbench.policy.soft_head import Layer, soft_head

VOCAB = 11


def inputs(n=14, dtype=torch.float64, bias=False, seed=0):
    """Policy, reference and critic layers of different widths, and temperatures."""
    g = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=g, dtype=torch.float64).to(dtype)  # noqa: E731
    layers = [Layer(draw(n, width), draw(VOCAB, width), draw(VOCAB) if bias else None) for width in (6, 5, 4)]
    return *layers, (0.5 + torch.rand(n, generator=g, dtype=torch.float64)).to(dtype)


def linear(layer):
    return torch.nn.functional.linear(layer.hidden, layer.weight, layer.bias)


def naive(policy, reference, critic, temperature):
    logp, logr = ((linear(x) / temperature[:, None]).log_softmax(-1) for x in (policy, reference))
    return (logp.exp() * linear(critic)).sum(-1), (logp.exp() * (logp - logr)).sum(-1)


def tabular(logits):
    """The layer whose logits are this table [n, V]: one-hot hidden states."""
    return Layer(torch.eye(len(logits), dtype=logits.dtype), logits.T)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("chunk_elements", [1, 3 * 5 * VOCAB, 10**6])
def test_values_equal_the_naive_formulas_for_every_chunk_size(bias, chunk_elements):
    arguments = inputs(bias=bias)
    got = soft_head(*arguments, chunk_elements=chunk_elements)
    for mine, oracle in zip((got.expected_q, got.kl), naive(*arguments), strict=True):
        torch.testing.assert_close(mine, oracle, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("bias", [False, True])
def test_gradients_match_finite_differences(bias):
    policy, reference, critic, temperature = inputs(n=5, bias=bias)
    leaves = [x.requires_grad_() for x in (policy.hidden, policy.weight, policy.bias) if x is not None]

    def both(*parts):
        out = soft_head(Layer(*parts), reference, critic, temperature, chunk_elements=3 * 2 * VOCAB)
        return out.expected_q, out.kl

    assert torch.autograd.gradcheck(both, leaves)


def test_the_soft_loss_has_the_published_gradient_in_the_logits():
    """∂/∂z_v Σ π(β(log π − log ρ) − Q) = π_v(β(log π_v − log ρ_v) − Q_v − ℓ), ℓ the loss itself."""
    beta = 0.3
    z, r, q = torch.randn(3, 7, VOCAB, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    z.requires_grad_()
    out = soft_head(tabular(z), tabular(r), tabular(q), torch.ones(7, dtype=torch.float64))
    loss = beta * out.kl - out.expected_q
    (mine,) = torch.autograd.grad(loss.sum(), z)
    logp, logr = z.log_softmax(-1), r.log_softmax(-1)
    expected = logp.exp() * (beta * (logp - logr) - q - loss[:, None])
    torch.testing.assert_close(mine, expected.detach(), rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("beta", [0.01, 0.5, 3.0])
def test_the_gradient_vanishes_at_the_closed_form_optimum_and_nowhere_near_it(beta):
    r, q, away = torch.randn(3, 7, VOCAB, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    q *= beta  # so that no β makes the optimum a single token, where every gradient is small
    ones = torch.ones(7, dtype=torch.float64)
    norms = []
    for step in (0.0, 0.1):
        z = (r.log_softmax(-1) + q / beta + step * away).requires_grad_()
        out = soft_head(tabular(z), tabular(r), tabular(q), ones)
        (beta * out.kl - out.expected_q).sum().backward()
        norms.append(z.grad.norm())
    assert norms[0] < 1e-12 and norms[1] > 1e-3 * beta


def test_the_soft_value_of_the_optimum_is_a_log_sum_exp():
    beta = 0.2
    r, q = torch.randn(2, 7, VOCAB, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    out = soft_head(tabular(r + q / beta), tabular(r), tabular(q), torch.ones(7, dtype=torch.float64))
    expected = beta * (r.log_softmax(-1) + q / beta).logsumexp(-1)
    torch.testing.assert_close(out.expected_q - beta * out.kl, expected, rtol=1e-12, atol=1e-12)


def test_reference_and_critic_get_no_gradient():
    policy, reference, critic, temperature = inputs()
    leaves = [x.requires_grad_() for x in (reference.hidden, reference.weight, critic.hidden, critic.weight)]
    policy.hidden.requires_grad_()
    out = soft_head(policy, reference, critic, temperature)
    (out.kl + out.expected_q).sum().backward()
    assert policy.hidden.grad.norm() > 0 and all(leaf.grad is None for leaf in leaves)


def test_a_policy_equal_to_its_reference_has_no_kl_and_no_gradient_from_it():
    policy, _, critic, temperature = inputs(dtype=torch.float32)
    hidden = policy.hidden.clone().requires_grad_()
    out = soft_head(Layer(hidden, policy.weight), policy, critic, temperature)
    out.kl.sum().backward()
    assert out.kl.eq(0).all() and hidden.grad.eq(0).all()


@pytest.mark.parametrize("distance", [1e-3, 1e-2, 0.3, 40.0])
def test_kl_keeps_its_digits_in_fp32_near_and_far_from_the_reference(distance):
    """Against fp64 on the same fp32 logits, vocabulary 8k; Σ π·d alone is off by more than the KL itself at 1e-3."""
    g = torch.Generator().manual_seed(5)
    z, move, q = torch.randn(3, 4, 8_000, generator=g)
    tables = [20 * z + distance * move, 20 * z, q]
    exact = naive(*(tabular(t.double()) for t in tables), torch.ones(4, dtype=torch.float64))[1]
    got = soft_head(*(tabular(t) for t in tables), torch.ones(4)).kl
    assert got.gt(0).all() and got.isfinite().all()
    assert ((got.double() - exact).abs() / exact).max() < 5e-3
