"""The head's Triton kernels, on a GPU where there is one and in Triton's interpreter elsewhere, against fp64."""

import pytest
import torch

pytest.importorskip("triton", reason="`make extras` brings it")

from tests.policy.test_head import naive
from workbench.policy import head_kernels
from workbench.policy.head_kernels import check, kernel_head

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def inputs(vocabulary, dtype=torch.float32, n=9, width=16, bias=True, spread=2.0):
    generator = torch.Generator().manual_seed(vocabulary)
    hidden = spread * torch.randn(n, width, generator=generator)
    weight = torch.randn(vocabulary, width, generator=generator)
    target = torch.randint(vocabulary, (n,), generator=generator)
    heat = 0.5 + torch.rand(n, generator=generator)
    b = torch.randn(vocabulary, generator=generator) if bias else None
    moved = (x if x is None else x.to(DEVICE) for x in (hidden.to(dtype), weight.to(dtype), target, heat, b))
    return tuple(moved)


def oracle(hidden, weight, target, temperature, bias):
    return naive(hidden, weight, target, temperature.double(), bias)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("vocabulary", [5, 17, head_kernels.BLOCK, head_kernels.BLOCK + 3])
@pytest.mark.parametrize("rows", [1, 4, 100])
def test_values_and_gradients_are_those_of_fp64(vocabulary, rows, bias):
    hidden, weight, target, heat, b = inputs(vocabulary, bias=bias)
    mix = torch.randn(2, len(target), generator=torch.Generator().manual_seed(1)).to(DEVICE)
    found = []
    for function, dtype in ((kernel_head, torch.float32), (oracle, torch.float64)):
        leaves = [None if x is None else x.detach().to(dtype).requires_grad_() for x in (hidden, weight, b)]
        if function is kernel_head:
            out = kernel_head(*leaves[:2], target, heat, leaves[2], with_sums=True, elements=rows * vocabulary)
            columns = (out.logp, out.entropy, out.sum_p2, out.sum_p2_logp)
        else:
            columns = oracle(*leaves[:2], target, heat, leaves[2])
        (mix[0] * columns[0] + mix[1] * columns[1]).sum().backward()
        found.append([*(column.detach() for column in columns), *(leaf.grad for leaf in leaves if leaf is not None)])
    for ours, exact in zip(*found, strict=True):
        torch.testing.assert_close(ours.double(), exact, rtol=1e-4, atol=2e-6 * float(exact.abs().max()))


def test_gradients_of_the_log_prob_alone_and_of_what_is_not_frozen():
    hidden, weight, target, heat, b = inputs(17)
    kernel_head(hidden.requires_grad_(), weight, target, heat, b).logp.sum().backward()
    other = hidden.detach().double().requires_grad_()
    oracle(other, weight.double(), target, heat, b.double())[0].sum().backward()
    torch.testing.assert_close(hidden.grad.double(), other.grad, rtol=1e-4, atol=1e-5)
    assert weight.grad is None and b.grad is None


@pytest.mark.parametrize("height", [3.0, 9.0, 16.0, 25.0])
def test_entropy_keeps_its_digits_as_the_policy_collapses(height):
    logits = torch.randn(6, 4099, generator=torch.Generator().manual_seed(0))
    logits[:, 7] += height
    target, one = torch.full((6,), 7, device=DEVICE), torch.ones(6, device=DEVICE)
    out = kernel_head(logits.to(DEVICE), torch.eye(4099, device=DEVICE), target, one)
    exact = oracle(logits.double(), torch.eye(4099).double(), target.cpu(), one.cpu(), None)
    torch.testing.assert_close(out.entropy.cpu().double(), exact[1], rtol=2e-6, atol=0)
    torch.testing.assert_close(out.logp.cpu().double(), exact[0], rtol=2e-6, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_check_passes_and_finds_a_kernel_that_is_wrong(dtype, monkeypatch):
    assert check(DEVICE, 5000, dtype) < head_kernels.TOLERANCE
    right = head_kernels._statistics
    wrong = lambda *given: tuple(x if x is None else x * 1.001 for x in right(*given))  # noqa: E731
    monkeypatch.setattr(head_kernels, "_statistics", wrong)
    with pytest.raises(ValueError, match=r"set policy\.kernels to false"):
        check(DEVICE, 5000, dtype)


def test_what_is_not_a_number_stays_so():
    hidden, weight, target, heat, _ = inputs(17, bias=False)
    weight[3, 0] = float("nan")
    out = kernel_head(hidden, weight, target, heat)
    assert out.logp.isnan().all() and out.entropy.isnan().all()
