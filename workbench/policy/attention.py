"""The workbench's attention: one function registered with transformers that serves packed training and cached decoding.

A model loaded with `attn_implementation="workbench"` hands query, key and value to the context passed to its forward
(`attention_context=`), which knows which tokens may see which. Without a context it is plain causal attention.
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import AttentionInterface

from workbench.policy.packing import PackedBatch

NAME = "workbench"
SHORT_CONTEXT = 128
"""On CPU, below this many keys, plain matrix products take 1.1 to 1.9 times less time than torch's SDPA, forward and
backward (tests/benchmarks/attention.py); at 1,024 keys they take 2.3 times more."""


def workbench_attention(module, query, key, value, attention_mask, scaling=None, attention_context=None, **kwargs):
    """transformers' attention signature: query [B, H, Q, D], key and value [B, Hkv, K, D] -> ([B, Q, H, D], None)."""
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    if attention_context is not None:
        return attention_context.attend(module.layer_idx, query, key, value, scaling), None
    causal = torch.ones(query.shape[2], key.shape[2], dtype=torch.bool, device=query.device)
    mask = causal.tril(key.shape[2] - query.shape[2])
    return masked_attention(query, key, value, additive_mask(mask, query.dtype), scaling).transpose(1, 2), None


AttentionInterface.register(NAME, workbench_attention)


def additive_mask(visible: Tensor, dtype: torch.dtype) -> Tensor:
    """bool (True: may attend) -> 0 where visible, −inf elsewhere."""
    return torch.zeros(visible.shape, dtype=dtype, device=visible.device).masked_fill_(~visible, float("-inf"))


def masked_attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float) -> Tensor:
    """softmax(q·kᵀ·scaling + mask)·v, grouped heads: query [B, H, Q, D], key/value [B, Hkv, K, D] -> [B, H, Q, D].

    mask: [Q, K] or [B, 1, Q or 1, K], added to the scores; None hides nothing.
    """
    heads, kv_heads = query.shape[1], key.shape[1]
    if query.device.type != "cpu" or key.shape[2] >= SHORT_CONTEXT:
        return torch.nn.functional.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, scale=scaling, enable_gqa=heads != kv_heads
        )
    if heads != kv_heads:
        key = key.repeat_interleave(heads // kv_heads, dim=1)
        value = value.repeat_interleave(heads // kv_heads, dim=1)
    shape = (query.shape[0], heads, query.shape[2], key.shape[2])
    query, key, value = (x.flatten(0, 1) for x in (query, key, value))
    if mask is None:
        scores = torch.bmm(query * scaling, key.transpose(1, 2))
    else:
        mask = mask.expand(len(query), *shape[2:]) if mask.dim() == 2 else mask.expand(shape).flatten(0, 1)
        scores = torch.baddbmm(mask, query, key.transpose(1, 2), alpha=scaling)
    return torch.bmm(scores.softmax(-1), value).unflatten(0, (-1, heads))


class _MoveRows(torch.autograd.Function):
    """Rows moved by an injective map: gather in forward, the inverse gather in backward (no slow scatter-add)."""

    @staticmethod
    def forward(ctx, rows: Tensor, index: Tensor, inverse: Tensor):
        ctx.save_for_backward(index, inverse)
        return _gather_or_zero(rows, index)

    @staticmethod
    def backward(ctx, grad: Tensor):
        _, inverse = ctx.saved_tensors
        return _gather_or_zero(grad, inverse), None, None


def _gather_or_zero(rows: Tensor, index: Tensor) -> Tensor:
    """rows[index], with zeros where index is −1."""
    missing = index < 0
    out = rows.index_select(0, index.clamp(min=0))
    return out.masked_fill_(missing.unsqueeze(1), 0.0) if bool(missing.any()) else out


class _Segments:
    """Maps between rows packed end to end and a [count, longest] grid, padded on the right."""

    def __init__(self, lengths: Tensor):
        self.count, self.longest = len(lengths), int(lengths.max())
        self.rows = int(lengths.sum())
        self.dense = self.rows == self.count * self.longest
        if self.dense:
            return
        column = torch.arange(self.longest, device=lengths.device)
        inside = column < lengths.unsqueeze(1)
        starts = lengths.cumsum(0) - lengths
        self.to_grid = torch.where(inside, starts.unsqueeze(1) + column, -1).flatten()
        self.to_rows = inside.flatten().nonzero().squeeze(1)

    def grid(self, rows: Tensor) -> Tensor:
        """[rows, C] -> [count, longest, C]"""
        if not self.dense:
            rows = _MoveRows.apply(rows, self.to_grid, self.to_rows)
        return rows.view(self.count, self.longest, -1)

    def packed(self, grid: Tensor) -> Tensor:
        """[count, longest, C] -> [rows, C]"""
        flat = grid.reshape(self.count * self.longest, -1)
        return flat if self.dense else _MoveRows.apply(flat, self.to_rows, self.to_grid)


class PackedAttention:
    """Attention context of a `PackedBatch`: prompts are causal; a response sees its prompt and its own past."""

    def __init__(self, batch: PackedBatch, dtype: torch.dtype = torch.float32):
        self.prompts = _Segments(batch.prompt_lengths)
        has_rows = int(batch.response_lengths.sum()) > 0
        self.responses = _Segments(batch.response_lengths) if has_rows else None
        self.prompt_of = batch.prompt_of
        device = batch.input_ids.device
        self.prompt_mask = additive_mask(_causal(self.prompts.longest, device), dtype)
        if self.responses is None:
            return
        own = _causal(self.responses.longest, device)
        column = torch.arange(self.prompts.longest, device=device)
        in_prompt = column < batch.prompt_lengths[batch.prompt_of].unsqueeze(1)
        if bool(in_prompt.all()):
            visible = torch.cat([torch.ones(len(own), len(column), dtype=torch.bool, device=device), own], 1)
        else:
            in_prompt = in_prompt[:, None, None, :].expand(-1, 1, len(own), -1)
            visible = torch.cat([in_prompt, own.expand(len(in_prompt), 1, -1, -1)], 3)
        self.response_mask = additive_mask(visible, dtype)

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
        """query [1, H, T, D], key/value [1, Hkv, T, D] -> [1, T, H, D]"""
        rows = [x.transpose(1, 2).reshape(x.shape[2], -1) for x in (query, key, value)]
        sizes = [self.prompts.rows, rows[0].shape[0] - self.prompts.rows]
        prompt_rows, response_rows = zip(*(x.split(sizes) for x in rows), strict=True)

        def heads(segments: _Segments, packed: Tensor) -> Tensor:
            return segments.grid(packed).unflatten(-1, (-1, query.shape[-1])).transpose(1, 2)

        def packed(segments: _Segments, out: Tensor) -> Tensor:
            return segments.packed(out.transpose(1, 2).flatten(2))

        q, k, v = (heads(self.prompts, x) for x in prompt_rows)
        out = [packed(self.prompts, masked_attention(q, k, v, self.prompt_mask, scaling))]
        if self.responses is not None:
            own_q, own_k, own_v = (heads(self.responses, x) for x in response_rows)
            seen_k = torch.cat([k.index_select(0, self.prompt_of), own_k], 2)
            seen_v = torch.cat([v.index_select(0, self.prompt_of), own_v], 2)
            out.append(packed(self.responses, masked_attention(own_q, seen_k, seen_v, self.response_mask, scaling)))
        return torch.cat(out).unflatten(-1, (-1, query.shape[-1])).unsqueeze(0)


def _causal(length: int, device: torch.device) -> Tensor:
    return torch.ones(length, length, dtype=torch.bool, device=device).tril()
