"""Rows taken more than once, with gradients that add up in a fixed order.

Autograd's own backward of `rows[index]` on a CPU lets several threads add to a row as they come, so with two threads
the same training step had one of two results.
"""

from __future__ import annotations

import torch
from torch import Tensor


def gather(rows: Tensor, index: Tensor | slice) -> Tensor:
    """rows[index] of rows [n] or [n, D] with index [N], repeats allowed; the gradient is the same every time."""
    if isinstance(index, slice) or not rows.requires_grad or rows.device.type != "cpu":
        return rows[index]
    return _Gather.apply(rows, index)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx, rows: Tensor, index: Tensor):
        ctx.save_for_backward(index)
        ctx.count = len(rows)
        return rows.index_select(0, index)

    @staticmethod
    def backward(ctx, grad: Tensor):
        (index,) = ctx.saved_tensors
        out = grad.new_zeros(ctx.count, *grad.shape[1:])
        if grad.dim() == 1:
            return out.index_add_(0, index, grad), None  # in one thread
        repeated = torch.bincount(index, minlength=ctx.count)[index] > 1
        alone = ~repeated
        out.index_copy_(0, index[alone], grad[alone])
        if bool(repeated.any()):
            used, place = torch.unique(index[repeated], return_inverse=True)
            wide = torch.promote_types(grad.dtype, torch.float32)
            adds = torch.zeros(len(used), len(place), dtype=wide)
            adds[place, torch.arange(len(place))] = 1
            out.index_copy_(0, used, (adds @ grad[repeated].to(wide)).to(grad.dtype))
        return out, None
