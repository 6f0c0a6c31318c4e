"""The soft head: exact expectations over the vocabulary that entropy-regularised methods need, chunk by chunk.

Three distributions or functions over the vocabulary meet in every token: the policy π, the reference ρ and a critic's
Q. None of them is ever held for more than a chunk of tokens; chunks are computed in fp32 and again in backward. It is
differentiable in the policy's hidden states and head; reference and critic are constants.

KL(π‖ρ) is computed as Σ_v (π_v·d_v + ρ_v − π_v), d = log π − log ρ: since Σ ρ = Σ π this is the same number, but every
term is non-negative, so that a policy near its reference keeps its digits where Σ π·d cancels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from workbench.policy.head import chunks, distribution, elements_on, scaled_logits

NEAR = 30.0
"""Below d = −NEAR, π is e^−30 of ρ: nothing cancels there, and e^−d would leave the range of fp32 later on."""


@dataclass
class Layer:
    """Hidden states [N, D] and the output layer they go through: weight [V, D], bias [V] or None."""

    hidden: Tensor
    weight: Tensor
    bias: Tensor | None = None


@dataclass
class SoftStatistics:
    """Per token, fp32 [N]: `expected_q` = Σ_v π_v Q_v, in units of Q; `kl` = KL(π‖ρ), nats."""

    expected_q: Tensor
    kl: Tensor


def _log_probs(layer: tuple, temperature: Tensor) -> tuple[Tensor, Tensor]:
    """(p, log p), each [n, V]."""
    probs, shifted, log_norm, _ = distribution(scaled_logits(*layer, temperature))
    return probs, shifted.sub_(log_norm.unsqueeze(1))


def _kl(probs: Tensor, other: Tensor, gap: Tensor) -> Tensor:
    """KL [n] of probs ‖ other, with gap = log probs − log other [n, V]."""
    near = probs * (gap + torch.expm1(-gap.clamp(min=-NEAR)))
    return torch.where(gap > -NEAR, near, probs * gap + other - probs).sum(-1)


class _SoftHead(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden, weight, bias, reference, critic, temperature, chunk):
        constants = (reference.hidden, reference.weight, reference.bias, critic.hidden, critic.weight, critic.bias)
        ctx.save_for_backward(hidden, weight, bias, *constants, temperature)
        ctx.chunk = chunk
        wide = torch.promote_types(hidden.dtype, torch.float32)
        expected_q, kl = torch.empty(2, len(hidden), dtype=wide, device=hidden.device)
        for rows in chunks(len(hidden), chunk):
            probs, other, gap, q = _vocabulary(hidden, weight, bias, *constants, temperature, rows)
            expected_q[rows] = torch.linalg.vecdot(probs, q)
            kl[rows] = _kl(probs, other, gap)
        return expected_q, kl

    @staticmethod
    def backward(ctx, grad_q, grad_kl):
        hidden, weight, bias, *_ = ctx.saved_tensors
        grad_hidden = torch.empty_like(hidden)
        grad_weight = torch.zeros_like(weight, dtype=grad_q.dtype)
        grad_bias = None if bias is None else torch.zeros_like(bias, dtype=grad_q.dtype)
        for rows in chunks(len(hidden), ctx.chunk):
            probs, _, gap, q = _vocabulary(*ctx.saved_tensors, rows)
            # ∂E[Q]/∂z_v = π_v (Q_v − E[Q]) and ∂KL/∂z_v = π_v (d_v − Σ_u π_u d_u)
            mixed = gap.mul_(grad_kl[rows].unsqueeze(1)).add_(q.mul_(grad_q[rows].unsqueeze(1)))
            grad = probs.mul(mixed.sub_(torch.linalg.vecdot(probs, mixed).unsqueeze(1)))
            grad.div_(ctx.saved_tensors[-1][rows].to(grad.dtype).unsqueeze(-1))
            grad_hidden[rows] = (grad @ weight.to(grad.dtype)).to(hidden.dtype)
            grad_weight.addmm_(grad.T, hidden[rows].to(grad.dtype))
            if grad_bias is not None:
                grad_bias += grad.sum(0)
        grad_bias = None if bias is None else grad_bias.to(bias.dtype)
        return grad_hidden, grad_weight.to(weight.dtype), grad_bias, None, None, None, None


def _vocabulary(hidden, weight, bias, ref_hidden, ref_weight, ref_bias, q_hidden, q_weight, q_bias, temperature, rows):
    """A chunk's (π, ρ, log π − log ρ, Q), each [n, V]."""
    heat = temperature[rows]
    probs, log_probs = _log_probs((hidden[rows], weight, bias), heat)
    other, log_other = _log_probs((ref_hidden[rows], ref_weight, ref_bias), heat)
    q = scaled_logits(q_hidden[rows], q_weight, q_bias, torch.ones_like(heat))
    return probs, other, log_probs.sub_(log_other), q


def soft_head(
    policy: Layer, reference: Layer, critic: Layer, temperature: Tensor, *, chunk_elements: int | None = None
) -> SoftStatistics:
    """E_π[Q] and KL(π‖ρ) with π, ρ = softmax((hidden·weightᵀ + bias) / temperature) and Q = hidden·weightᵀ + bias.

    temperature [N] > 0, of π and ρ alike; Q has none. The three layers may differ in width but not in N and V. The
    arithmetic is fp32 whatever the inputs (fp64 if the policy's are fp64). Differentiable in the policy's hidden,
    weight and bias; nothing goes back into reference and critic.
    """
    # A third of the fused head's chunk, for three layers are open at once.
    elements = chunk_elements or elements_on(policy.hidden.device)[0]
    chunk = max(1, elements // (3 * policy.weight.shape[0]))
    with torch.autocast(policy.hidden.device.type, enabled=False):
        parts = (policy.hidden, policy.weight, policy.bias, reference, critic, temperature, chunk)
        return SoftStatistics(*_SoftHead.apply(*parts))
