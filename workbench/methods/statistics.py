"""Statistics over tokens or sequences that are right on one device and on many.

Whatever a hook computes over the batch goes through these functions: under torch.distributed they span all ranks.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor


def total(values: Tensor) -> Tensor:
    """Σ values, over all devices; a scalar."""
    out = values.sum()
    if dist.is_initialized():
        dist.all_reduce(out)
    return out


def mean(values: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean of values [N] where mask [N] (bool), over all devices; NaN when nothing is selected."""
    chosen = values if mask is None else values[mask]
    count = total(torch.ones_like(chosen))
    return total(chosen) / count


def gathered(values: Tensor) -> Tensor:
    """All devices' values [N_rank], concatenated in rank order [ΣN]; for quantiles and top-k selections."""
    if not dist.is_initialized():
        return values
    sizes = [None] * dist.get_world_size()
    dist.all_gather_object(sizes, len(values))
    # Backends want equal sizes: pad, gather, cut.
    padded = torch.nn.functional.pad(values, (0, max(sizes) - len(values)))
    parts = [torch.empty_like(padded) for _ in sizes]
    dist.all_gather(parts, padded)
    return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])
