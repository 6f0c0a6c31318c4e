"""Packed attention on an NVIDIA GPU in half precision: one call of FlashAttention over sequences of any length.

The prompts and the responses are its sequences. The queries of a response are its own rows, its keys those of its
prompt and its own: with fewer queries than keys FlashAttention counts both from the end, so each row sees its prompt
and its own past. Nothing is padded and no mask is stored; the keys of a prompt are copied for each of its responses.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from workbench.policy.packing import PackedBatch
from workbench.tables import token_index

CAUSAL = (-1, 0)
"""All that was before, nothing after, as torch names it."""


def flash(query: Tensor, key: Tensor, value: Tensor, *lengths, scale: float) -> Tensor:
    """torch's `varlen_attn`: query [Tq, H, D], key and value [Tk, Hkv, D], where each sequence begins among the
    queries and among the keys [n + 1], and the longest of both."""
    from torch.nn.attention.varlen import varlen_attn

    grouped = query.shape[1] != key.shape[1]
    return varlen_attn(query, key, value, *lengths, scale=scale, window_size=CAUSAL, enable_gqa=grouped)


class VarlenAttention:
    """Attention context of a `PackedBatch`, as `PackedAttention` is; `kernel` is `flash`, or what computes the same."""

    def __init__(self, batch: PackedBatch, kernel: Callable[..., Tensor] = flash):
        self.kernel = kernel
        with_rows = batch.response_lengths.nonzero().squeeze(1)
        prompt_of, own = batch.prompt_of[with_rows], batch.response_lengths[with_rows]
        queries = torch.cat([batch.prompt_lengths, own])
        seen = torch.cat([torch.zeros_like(batch.prompt_lengths), batch.prompt_lengths[prompt_of]])
        begins = queries.cumsum(0) - queries
        sequence, position = token_index(queries + seen)
        prompt = torch.cat([torch.zeros_like(batch.prompt_lengths), begins[prompt_of]])
        in_prompt = position < seen[sequence]
        self.key_rows = torch.where(in_prompt, prompt[sequence] + position, (begins - seen)[sequence] + position)
        starts = (torch.nn.functional.pad(n.cumsum(0), (1, 0)).int() for n in (queries, queries + seen))
        self.lengths = (*starts, int(queries.max()), int((queries + seen).max()))

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
        """query [1, H, T, D], key/value [1, Hkv, T, D] -> [1, T, H, D]"""
        query, key, value = (x.squeeze(0).transpose(0, 1) for x in (query, key, value))
        key, value = (x.index_select(0, self.key_rows) for x in (key, value))
        return self.kernel(query.contiguous(), key, value, *self.lengths, scale=scaling).unsqueeze(0)
