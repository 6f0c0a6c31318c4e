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

SHORT = 64
"""Responses below this length share a bucket: splitting them saves less than another kernel call costs."""


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


class _Grids:
    """Maps between rows packed end to end and [count, longest] grids, padded on the right: one grid per bucket of
    segments. One gather makes all of them, and one takes them back."""

    def __init__(self, lengths: Tensor, buckets: list[Tensor] | None = None):
        self.members = [torch.arange(len(lengths), device=lengths.device)] if buckets is None else buckets
        self.shapes = [(len(members), int(lengths[members].max())) for members in self.members]
        self.rows = int(lengths.sum())
        self.dense = len(self.shapes) == 1 and self.rows == self.shapes[0][0] * self.shapes[0][1]
        if self.dense:
            return
        starts = lengths.cumsum(0) - lengths
        places = []
        for members, (_, longest) in zip(self.members, self.shapes, strict=True):
            column = torch.arange(longest, device=lengths.device)
            inside = column < lengths[members].unsqueeze(1)
            places.append(torch.where(inside, starts[members].unsqueeze(1) + column, -1).flatten())
        self.to_grids = torch.cat(places)
        filled = self.to_grids >= 0
        self.to_rows = torch.empty(self.rows, dtype=torch.int64, device=lengths.device)
        self.to_rows[self.to_grids[filled]] = filled.nonzero().squeeze(1)

    def split(self, rows: Tensor) -> list[Tensor]:
        """[rows, C] -> a [count, longest, C] per bucket"""
        if not self.dense:
            rows = _MoveRows.apply(rows, self.to_grids, self.to_rows)
        parts = rows.split([count * longest for count, longest in self.shapes])
        return [part.view(*shape, -1) for part, shape in zip(parts, self.shapes, strict=True)]

    def packed(self, grids: list[Tensor]) -> Tensor:
        """The inverse of `split`: [rows, C]"""
        flat = torch.cat([grid.flatten(0, 1) for grid in grids]) if len(grids) > 1 else grids[0].flatten(0, 1)
        return flat if self.dense else _MoveRows.apply(flat, self.to_rows, self.to_grids)


def length_buckets(lengths: Tensor) -> list[Tensor]:
    """Segments by length, longest first: a bucket's lengths are within a factor of two, those below `SHORT` are one.

    Attention pads every segment to the longest of its bucket, so what is computed in vain stays below what is needed.
    """
    longest = max(int(lengths.max()), SHORT)
    level = (longest / lengths.clamp(min=SHORT)).log2().floor()
    return [(level == value).nonzero().squeeze(1) for value in level.unique().tolist()]


class PackedAttention:
    """Attention context of a `PackedBatch`: prompts are causal; a response sees its prompt and its own past."""

    def __init__(self, batch: PackedBatch, dtype: torch.dtype = torch.float32):
        self.prompts = _Grids(batch.prompt_lengths)
        self.responses: _Grids | None = None
        longest_prompt = self.prompts.shapes[0][1]
        self.prompt_mask = additive_mask(_causal(longest_prompt, batch.input_ids.device), dtype)
        if int(batch.response_lengths.sum()) == 0:
            return
        with_rows = batch.response_lengths.nonzero().squeeze(1)
        buckets = [with_rows[members] for members in length_buckets(batch.response_lengths[with_rows])]
        self.responses = _Grids(batch.response_lengths, buckets)
        self.prompt_of = [batch.prompt_of[members] for members in buckets]
        self.response_masks = [
            additive_mask(_visible(batch.prompt_lengths[prompt_of], longest_prompt, longest), dtype)
            for prompt_of, (_, longest) in zip(self.prompt_of, self.responses.shapes, strict=True)
        ]

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
        """query [1, H, T, D], key/value [1, Hkv, T, D] -> [1, T, H, D]"""
        rows = [x.transpose(1, 2).reshape(x.shape[2], -1) for x in (query, key, value)]
        sizes = [self.prompts.rows, rows[0].shape[0] - self.prompts.rows]
        prompt_rows, response_rows = zip(*(x.split(sizes) for x in rows), strict=True)

        def heads(grids: _Grids, packed: Tensor) -> list[Tensor]:
            return [grid.unflatten(-1, (-1, query.shape[-1])).transpose(1, 2) for grid in grids.split(packed)]

        def packed(grids: _Grids, out: list[Tensor]) -> Tensor:
            return grids.packed([part.transpose(1, 2).flatten(2) for part in out])

        q, k, v = (heads(self.prompts, x)[0] for x in prompt_rows)
        out = [packed(self.prompts, [masked_attention(q, k, v, self.prompt_mask, scaling)])]
        if self.responses is not None:
            parts = zip(
                *(heads(self.responses, x) for x in response_rows), self.prompt_of, self.response_masks, strict=True
            )
            attended = []
            for own_q, own_k, own_v, prompt_of, mask in parts:
                seen_k = torch.cat([k.index_select(0, prompt_of), own_k], 2)
                seen_v = torch.cat([v.index_select(0, prompt_of), own_v], 2)
                attended.append(masked_attention(own_q, seen_k, seen_v, mask, scaling))
            out.append(packed(self.responses, attended))
        return torch.cat(out).unflatten(-1, (-1, query.shape[-1])).unsqueeze(0)


def _visible(prompt_lengths: Tensor, longest_prompt: int, longest: int) -> Tensor:
    """What the rows of S responses of up to `longest` rows see of their prompt's and their own columns, bool:
    [L, P + L] if the prompts are equally long, else [S, 1, L, P + L]."""
    own = _causal(longest, prompt_lengths.device)
    in_prompt = torch.arange(longest_prompt, device=prompt_lengths.device) < prompt_lengths.unsqueeze(1)
    if bool(in_prompt.all()):
        return torch.cat([in_prompt.new_ones(longest, longest_prompt), own], 1)
    in_prompt = in_prompt[:, None, None, :].expand(-1, 1, longest, -1)
    return torch.cat([in_prompt, own.expand(len(in_prompt), 1, -1, -1)], 3)


def _causal(length: int, device: torch.device) -> Tensor:
    return torch.ones(length, length, dtype=torch.bool, device=device).tril()
