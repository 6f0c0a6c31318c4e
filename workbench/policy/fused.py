"""RMSNorm with a hand-written backward: the same function as transformers', in half the passes over memory.

On CPU a small model spends as long in element-wise passes as in its matrix products; the autograd of RMSNorm's six
operations is the largest part of that which can be saved without touching the architecture.
"""

from __future__ import annotations

from types import MethodType

import torch
from torch import Tensor, nn


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden: Tensor, weight: Tensor, epsilon: float):
        scale = torch.linalg.vecdot(hidden, hidden).div_(hidden.shape[-1]).add_(epsilon).rsqrt_().unsqueeze(-1)
        normed = hidden * scale
        ctx.save_for_backward(normed, weight, scale)
        return normed * weight

    @staticmethod
    def backward(ctx, grad: Tensor):
        # With n = h·s and s = (mean h² + ε)^(−1/2): ∂L/∂h = s·(g·w − n·mean(g·w·n)) and ∂L/∂w = Σ g·n
        normed, weight, scale = ctx.saved_tensors
        weighted = grad * weight
        shared = torch.linalg.vecdot(weighted, normed).div_(normed.shape[-1]).unsqueeze(-1)
        grad_weight = torch.linalg.vecdot(grad.flatten(0, -2), normed.flatten(0, -2), dim=0)
        return weighted.addcmul_(normed, shared, value=-1).mul_(scale), grad_weight, None


def _forward(module: nn.Module, hidden: Tensor) -> Tensor:
    """Half precision takes the module's own forward, which widens it; anything wider takes the fast path as it is."""
    if hidden.dtype == module.weight.dtype in (torch.float32, torch.float64):
        return _RMSNorm.apply(hidden, module.weight, module.variance_epsilon)
    return type(module).forward(module, hidden)


def speed_up_norms(model: nn.Module) -> int:
    """Give every standard RMSNorm of `model` the fast forward; returns how many there were.

    Standard means: weight and `variance_epsilon` only (so not Gemma's 1 + weight, nor LayerNorm).
    """
    norms = [m for m in model.modules() if type(m).__name__.endswith("RMSNorm") and hasattr(m, "variance_epsilon")]
    for norm in norms:
        norm.forward = MethodType(_forward, norm)
    return len(norms)
