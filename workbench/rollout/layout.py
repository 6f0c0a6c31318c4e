"""Many tensors in one block of memory, which a file or a message can hold: what lies where, and views of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

Entry = tuple[str, str, Sequence[int]]
"""A tensor in a block: name, dtype, shape. It lies behind those before it."""
ALIGNMENT = 64
"""Bytes: tensors start at multiples of this, so that any dtype can view them."""


def entries_of(tensors: Mapping[str, Tensor], dtype: torch.dtype | None = None) -> list[Entry]:
    """What a block of the tensors holds, in `dtype` or each in its own."""
    return [(name, str(dtype or t.dtype).removeprefix("torch."), tuple(t.shape)) for name, t in tensors.items()]


def size_of(entries: Sequence[Entry]) -> int:
    """Bytes of a block."""
    return sum(-(-_bytes(entry) // ALIGNMENT) * ALIGNMENT for entry in entries)


def views_of(block: Tensor, entries: Sequence[Entry]) -> list[tuple[str, Tensor]]:
    """The tensors by name, as views of block [size_of(entries)] uint8."""
    views, start = [], 0
    for entry in entries:
        name, dtype, shape = entry
        views.append((name, block[start : start + _bytes(entry)].view(getattr(torch, dtype)).view(tuple(shape))))
        start += size_of([entry])
    return views


def _bytes(entry: Entry) -> int:
    _, dtype, shape = entry
    return math.prod(shape) * getattr(torch, dtype).itemsize
