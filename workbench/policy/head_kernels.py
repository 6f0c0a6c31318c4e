"""The fused head on an NVIDIA GPU: what `workbench.policy.head` computes, its passes over the logits in Triton.

Products of half-precision hidden states are half-precision products summed in fp32, so logits keep the accumulator's
digits; everything after them is fp32. One kernel reads a row of logits twice and leaves its sums, another turns logits
into their gradient in one pass; what cancels or needs log1p is done on the sums, by torch. The head of every other
device is the oracle, see `check`.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from workbench.policy.head import TokenStatistics, chunks, coefficients, fused_head

BLOCK = 4096
"""Logits of a row that a program holds at a time."""
CHUNK_ELEMENTS = 1 << 28
"""Logits per product: 1 GiB in fp32, rows enough to fill a large device even at a vocabulary of 152k."""
TOLERANCE = 1e-4
"""Largest gap from the torch version that `check` lets pass, relative to the largest value there: rounding in fp32,
summed in another order, stays far below."""


@triton.jit
def _row_sums(logits, heat, top, argmax, sums, vocabulary, SQUARES: tl.constexpr, BLOCK: tl.constexpr):
    """Of z = logits/T of one row: its largest value and where it is, and, with d = z − max and e = e^d, over all
    but the arg-max: Σe, Σe·d and, with SQUARES, Σe², Σe²·d. `sums` is [4, rows]."""
    row = tl.program_id(0).to(tl.int64)
    rows = tl.num_programs(0)
    own = logits + row * vocabulary
    cold = 1.0 / tl.load(heat + row)
    lane = tl.arange(0, BLOCK)
    best = tl.full([BLOCK], float("-inf"), tl.float32)
    place = tl.zeros([BLOCK], tl.int32)
    for start in range(0, vocabulary, BLOCK):
        z = tl.load(own + start + lane, mask=start + lane < vocabulary, other=float("-inf")) * cold
        place = tl.where(z > best, start + lane, place)
        best = tl.where(z > best, z, best)
    most = tl.max(best, 0)
    first = tl.min(tl.where(best == most, place, vocabulary), 0)
    exp, exp_d = tl.zeros([BLOCK], tl.float32), tl.zeros([BLOCK], tl.float32)
    square, square_d = tl.zeros([BLOCK], tl.float32), tl.zeros([BLOCK], tl.float32)
    for start in range(0, vocabulary, BLOCK):
        counts = (start + lane < vocabulary) & (start + lane != first)
        d = tl.load(own + start + lane, mask=start + lane < vocabulary, other=0.0) * cold - most
        e = tl.where(counts, tl.exp(d), 0.0)
        exp += e
        exp_d += e * d
        if SQUARES:
            square += e * e
            square_d += e * e * d
    tl.store(top + row, most)
    tl.store(argmax + row, first.to(tl.int64))
    tl.store(sums + row, tl.sum(exp, 0))
    tl.store(sums + rows + row, tl.sum(exp_d, 0))
    if SQUARES:
        tl.store(sums + 2 * rows + row, tl.sum(square, 0))
        tl.store(sums + 3 * rows + row, tl.sum(square_d, 0))


@triton.jit
def _gradient(logits, out, heat, top, target, own, level, slope, vocabulary, SLOPE: tl.constexpr, BLOCK: tl.constexpr):
    """out = e^d·(level + slope·d)/T for a block of a row, and own/T where the target is."""
    row = tl.program_id(0).to(tl.int64)
    place = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = place < vocabulary
    cold = 1.0 / tl.load(heat + row)
    d = tl.load(logits + row * vocabulary + place, mask=inside, other=0.0) * cold - tl.load(top + row)
    factor = tl.load(level + row)
    if SLOPE:
        factor = factor + tl.load(slope + row) * d
    value = tl.where(place == tl.load(target + row), tl.load(own + row), tl.exp(d) * factor) * cold
    tl.store(out + row * vocabulary + place, value.to(out.dtype.element_ty), mask=inside)


def kernel_head(
    hidden: Tensor,
    weight: Tensor,
    target: Tensor,
    temperature: Tensor,
    bias: Tensor | None = None,
    *,
    with_sums: bool = False,
    elements: int = CHUNK_ELEMENTS,
) -> TokenStatistics:
    """As `fused_head`, which says what the arguments are; products are made in the dtype of `hidden`, where that is
    half precision, and summed in fp32. `elements`: logits per product."""
    with torch.autocast(hidden.device.type, enabled=False):
        return TokenStatistics(*_KernelHead.apply(hidden, weight, bias, target, temperature, elements, with_sums))


class _KernelHead(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden, weight, bias, target, temperature, elements, with_sums):
        heat, weight_used = temperature.float(), weight.to(hidden.dtype)
        parts = []
        for rows in _rows(hidden, weight, elements):
            z = logits(hidden[rows], weight_used, bias)
            parts.append(_statistics(z, heat[rows], target[rows], with_sums))
        columns = [torch.cat(column) if column[0] is not None else None for column in zip(*parts, strict=True)]
        logp, entropy, top, rest, sum_p2, sum_p2_logp = columns
        ctx.save_for_backward(hidden, weight, bias, target, heat, logp, entropy, top, rest)
        ctx.elements = elements
        ctx.set_materialize_grads(False)
        return logp, entropy, sum_p2, sum_p2_logp

    @staticmethod
    def backward(ctx, grad_logp, grad_entropy, _sum_p2, _sum_p2_logp):
        hidden, weight, bias, target, heat, logp, entropy, top, rest = ctx.saved_tensors
        own, level, slope = coefficients(grad_logp, grad_entropy, logp, entropy, rest)
        weight_used, (to_hidden, to_weight, to_bias) = weight.to(hidden.dtype), ctx.needs_input_grad[:3]
        grad_hidden = torch.empty_like(hidden) if to_hidden else None
        grad_weight = torch.zeros_like(weight, dtype=torch.float32) if to_weight else None
        grad_bias = torch.zeros_like(bias, dtype=torch.float32) if to_bias else None
        for rows in _rows(hidden, weight, ctx.elements):
            z = logits(hidden[rows], weight_used, bias)
            coefficient = (own[rows], level[rows], None if slope is None else slope[rows])
            grad = _logit_gradient(z, hidden.dtype, heat[rows], top[rows], target[rows], *coefficient)
            if to_hidden:
                grad_hidden[rows] = _product(grad, weight_used)
            if to_weight:
                grad_weight += _product(grad.T, hidden[rows])
            if to_bias:
                grad_bias += grad.sum(0, dtype=torch.float32)
        return (
            grad_hidden,
            grad_weight.to(weight.dtype) if to_weight else None,
            grad_bias.to(bias.dtype) if to_bias else None,
            *[None] * 4,
        )


def _rows(hidden: Tensor, weight: Tensor, elements: int) -> list[slice]:
    return chunks(len(hidden), max(1, elements // len(weight)))


def _product(left: Tensor, right: Tensor) -> Tensor:
    """left·right, summed and given in fp32."""
    if left.dtype == torch.float32:
        return torch.mm(left, right)
    if left.is_cuda:
        return torch.mm(left, right, out_dtype=torch.float32)
    return torch.mm(left.float(), right.float())


def logits(hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """hidden·weightᵀ + bias [n, V] in fp32, of hidden [n, D] and weight [V, D] of one dtype."""
    z = _product(hidden, weight.T)
    return z if bias is None else z.add_(bias.float())


def _statistics(logits: Tensor, heat: Tensor, target: Tensor, with_sums: bool) -> tuple[Tensor | None, ...]:
    """logp, entropy, top, rest and, if asked for, Σp² and Σp²·log p of rows of logits [n, V]."""
    count, vocabulary = logits.shape
    top, argmax = torch.empty_like(heat), torch.empty_like(target)
    sums = heat.new_empty(4, count)
    _row_sums[(count,)](logits, heat, top, argmax, sums, vocabulary, SQUARES=with_sums, BLOCK=BLOCK)
    rest, exp_d, square, square_d = sums
    log_norm, norm = rest.log1p(), 1 + rest
    entropy = log_norm - exp_d / norm
    at_target = logits.gather(1, target.unsqueeze(1)).squeeze(1) / heat
    logp = torch.where(target == argmax, 0.0, at_target - top) - log_norm
    if not with_sums:
        return logp, entropy, top, rest, None, None
    sum_p2 = (1 + square) / norm**2
    return logp, entropy, top, rest, sum_p2, square_d / norm**2 - log_norm * sum_p2


def _logit_gradient(logits, dtype, heat, top, target, own, level, slope) -> Tensor:
    """∂loss/∂logits [n, V] in `dtype`; in place where that is the logits' own."""
    count, vocabulary = logits.shape
    out = logits if dtype == logits.dtype else torch.empty_like(logits, dtype=dtype)
    grid = (count, triton.cdiv(vocabulary, BLOCK))
    has_slope = slope is not None
    _gradient[grid](
        logits, out, heat, top, target, own, level, slope if has_slope else level, vocabulary, SLOPE=has_slope,
        BLOCK=BLOCK,
    )  # fmt: skip
    return out


def check(device: torch.device, vocabulary: int, dtype: torch.dtype) -> float:
    """Largest relative gap of values and gradients between the kernels and the torch version on made-up rows, from flat
    to nearly certain ones, at this vocabulary. Raises `ValueError` above `TOLERANCE`."""
    generator = torch.Generator().manual_seed(0)
    count, width = 16, 64
    sizes = torch.logspace(-1, 1.5, count).unsqueeze(1)
    hidden = (sizes * torch.randn(count, width, generator=generator)).to(device, dtype)
    weight = (torch.randn(vocabulary, width, generator=generator) / 8).to(device, dtype)
    target = torch.randint(vocabulary, (count,), generator=generator).to(device)
    temperature = torch.linspace(0.5, 2.0, count).to(device)
    found = []
    for function, kind in ((kernel_head, dtype), (fused_head, torch.float32)):
        leaves = [x.detach().to(kind).requires_grad_() for x in (hidden, weight)]
        out = function(*leaves, target, temperature, with_sums=True)
        (out.logp.sum() + 0.1 * out.entropy.sum()).backward()
        found.append([*out.columns().values(), *(leaf.grad for leaf in leaves)])
    # Gradients of half-precision inputs are rounded to it.
    rounding = [0.0] * 4 + [0.0 if dtype == torch.float32 else 2 * torch.finfo(dtype).eps] * 2
    gap = max(
        ((ours - oracle.to(ours.dtype)).abs().max() / oracle.abs().max()).item() - slack
        for ours, oracle, slack in zip(*found, rounding, strict=True)
    )
    if not gap <= TOLERANCE:
        raise ValueError(
            f"the head's Triton kernels differ from torch's result by {gap:.2g} on this device; set policy.kernels to "
            "false"
        )
    return gap
