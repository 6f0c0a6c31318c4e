"""The fast RMSNorm against transformers' own and against finite differences."""

import pytest
import torch
from transformers.models.qwen2.modeling_qwen2 import Qwen2RMSNorm

from tests.tiny import tiny_model
from workbench.policy.fused import _RMSNorm, speed_up_norms


def test_gradients_match_finite_differences():
    hidden = torch.randn(3, 2, 5, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda h, w: _RMSNorm.apply(h, w, 1e-6), (hidden, weight))


def test_it_equals_transformers_norm():
    plain = Qwen2RMSNorm(16)
    plain.weight.data.normal_()
    results = []
    for _ in range(2):
        hidden = torch.linspace(-3, 2, 7 * 16).reshape(1, 7, 16).requires_grad_()
        out = plain(hidden)
        (out * torch.arange(16)).sum().backward()
        results.append((out, hidden.grad, plain.weight.grad.clone()))
        plain.weight.grad = None
        assert speed_up_norms(plain) == 1
    for before, after in zip(*results, strict=True):
        torch.testing.assert_close(before, after, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("architecture", ["qwen2", "llama"])
def test_a_models_logits_do_not_change(architecture):
    model, ids = tiny_model(architecture), torch.arange(9).unsqueeze(0)
    with torch.no_grad():
        before = model(ids).logits
        assert speed_up_norms(model) >= 5
        torch.testing.assert_close(model(ids).logits, before, rtol=1e-5, atol=1e-5)


def test_other_dtypes_take_the_modules_own_forward():
    norm = Qwen2RMSNorm(8).bfloat16()
    hidden = torch.randn(2, 8).bfloat16()
    expected = norm(hidden)
    speed_up_norms(norm)
    assert torch.equal(norm(hidden), expected)
