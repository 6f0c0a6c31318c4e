"""The fused head: hidden states -> log-prob and exact entropy per token, never materialising tokens × vocabulary.

It walks the tokens in chunks, computes the chunk's logits in fp32, and recomputes them in backward. It is
differentiable in `logp` and in `entropy`, so the same function trains, scores and analyses.

Entropy is computed in the max-shifted, non-cancelling form. With m the arg-max, d_v = z_v − z_m ≤ 0 and
r = Σ_{v≠m} e^{d_v}, it is H = log(1 + r) + Σ_v p_v·(−d_v): a sum of non-negative terms, accurate to fp32 rounding down
to the collapsed regime, where logsumexp − Σ p·z loses percents.

Beside the products the time goes into passes over the chunk, so there are few: the temperature divides the hidden
states, not the logits; sums are taken before anything is normalised; on a CPU all passes over a few rows are made while
these are in cache. The target's gradient, in which 1 − p would cancel, is put in by itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from workbench.policy.gather import gather

CHUNK_ELEMENTS = 1 << 24
"""Logits per product (tokens × vocabulary): 64 MB in fp32, small beside a model, rows enough for an efficient GEMM."""
BLOCK_ELEMENTS = 1 << 19
"""Logits per round of passes over a chunk: 2 MB, which stay in cache."""
GPU_CHUNK_ELEMENTS = 1 << 28
"""Both on a GPU, where a chunk must hold enough rows to fill the device: 1 GB in fp32. Not tuned yet."""


def elements_on(device: torch.device) -> tuple[int, int]:
    """Logits per chunk and per block."""
    return (GPU_CHUNK_ELEMENTS,) * 2 if device.type == "cuda" else (CHUNK_ELEMENTS, BLOCK_ELEMENTS)


@dataclass
class TokenStatistics:
    """What the head returns per token, all fp32 [N] in nats; the sums (not differentiable) only when asked for."""

    logp: Tensor
    entropy: Tensor
    sum_p2: Tensor | None = None
    """Σ_v p_v²"""
    sum_p2_logp: Tensor | None = None
    """Σ_v p_v² log p_v; with it E[S] = H·Σp² + Σp² log p (arXiv 2602.03392)"""

    def columns(self) -> dict[str, Tensor]:
        """What there is, by name."""
        return {name: column for name, column in vars(self).items() if column is not None}

    def at(self, token: Tensor | slice) -> TokenStatistics:
        """The statistics of these tokens, any of them more than once."""
        return TokenStatistics(*(None if column is None else gather(column, token) for column in vars(self).values()))


def distribution(logits: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Exact softmax quantities of logits [n, V]: (p [n, V], d = z − max z [n, V], log Σ e^d [n], entropy [n]).

    log p_v = d_v − log Σ e^d. `logits` is overwritten with d.
    """
    top, argmax = logits.max(-1, keepdim=True)
    shifted = logits.sub_(top)
    exp = shifted.exp()
    rest = exp.scatter_(-1, argmax, 0.0).sum(-1)
    exp.scatter_(-1, argmax, 1.0)
    log_norm = rest.log1p()
    probs = exp.div_(1.0 + rest.unsqueeze(-1))
    entropy = log_norm - torch.linalg.vecdot(probs, shifted)
    return probs, shifted, log_norm, entropy


def chunks(count: int, size: int) -> list[slice]:
    """0 … count in consecutive slices of `size`, the last one shorter."""
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


def scaled_logits(hidden: Tensor, weight: Tensor, bias: Tensor | None, temperature: Tensor) -> Tensor:
    """(hidden·weightᵀ + bias) / temperature [n, V], in fp32 at least."""
    wide = torch.promote_types(hidden.dtype, torch.float32)
    logits = torch.nn.functional.linear(hidden.to(wide), weight.to(wide), None if bias is None else bias.to(wide))
    return logits.div_(temperature.to(wide).unsqueeze(-1))


@dataclass
class _Walk:
    """The logits of tokens, in fp32 at least: a chunk at a time in one buffer, and each chunk's blocks of rows."""

    hidden: Tensor
    """[N, D], divided by the temperature"""
    weight: Tensor
    bias: Tensor | None
    heat: Tensor
    """temperature [N]"""
    chunk: int
    block: int

    @classmethod
    def over(cls, hidden, weight, bias, temperature, elements: tuple[int, int]) -> _Walk:
        """`elements`: logits per chunk and per block."""
        wide = torch.promote_types(hidden.dtype, torch.float32)
        heat = temperature.to(wide)
        chunk, block = (max(1, count // len(weight)) for count in elements)
        bias = None if bias is None else bias.to(wide)
        return cls(hidden.to(wide) / heat.unsqueeze(1), weight.to(wide), bias, heat, chunk, block)

    def __iter__(self) -> Iterator[tuple[slice, Tensor]]:
        """Rows of each chunk and its logits [n, V], which the next chunk overwrites."""
        buffer = self.hidden.new_empty(min(self.chunk, len(self.hidden)), len(self.weight))
        for rows in chunks(len(self.hidden), self.chunk):
            logits = torch.mm(self.hidden[rows], self.weight.T, out=buffer[: rows.stop - rows.start])
            if self.bias is not None:
                logits.addr_(self.heat[rows].reciprocal(), self.bias)
            yield rows, logits

    def blocks(self, rows: slice, logits: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """The chunk a few rows at a time."""
        for part in chunks(len(logits), self.block):
            yield slice(rows.start + part.start, rows.start + part.stop), logits[part]

    def space(self) -> Tensor:
        """As large as a block."""
        return self.hidden.new_empty(min(self.block, len(self.hidden)), len(self.weight))


class _FusedHead(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden, weight, bias, target, temperature, elements, with_sums):
        walk = _Walk.over(hidden, weight, bias, temperature, elements)
        space, column = walk.space(), walk.heat.new_empty
        logp, entropy, top, rest = (column(len(target)) for _ in range(4))
        sum_p2, sum_p2_logp = (column(len(target)) if with_sums else None for _ in range(2))
        for rows, logits in walk:
            for own, z in walk.blocks(rows, logits):
                top[own], argmax = z.max(-1)
                shifted = z.sub_(top[own].unsqueeze(1))
                exp = torch.exp(shifted, out=space[: len(z)]).scatter_(1, argmax.unsqueeze(1), 0.0)
                rest[own] = exp.sum(-1)
                log_norm = rest[own].log1p()
                entropy[own] = log_norm - torch.linalg.vecdot(exp, shifted) / (1 + rest[own])
                logp[own] = shifted.gather(1, target[own].unsqueeze(1)).squeeze(1) - log_norm
                if with_sums:
                    probs = exp.scatter_(1, argmax.unsqueeze(1), 1.0).div_(1 + rest[own].unsqueeze(1))
                    squares = probs.square_()
                    sum_p2[own] = squares.sum(-1)
                    sum_p2_logp[own] = torch.linalg.vecdot(squares, shifted) - log_norm * sum_p2[own]
        ctx.save_for_backward(hidden, weight, bias, target, temperature, logp, entropy, top, rest)
        ctx.elements = elements
        ctx.set_materialize_grads(False)
        return logp, entropy, sum_p2, sum_p2_logp

    @staticmethod
    def backward(ctx, grad_logp, grad_entropy, _sum_p2, _sum_p2_logp):
        hidden, weight, bias, target, temperature, logp, entropy, top, rest = ctx.saved_tensors
        own, level, slope = coefficients(grad_logp, grad_entropy, logp, entropy, rest)
        walk = _Walk.over(hidden, weight, bias, temperature, ctx.elements)
        space, (to_hidden, to_weight, to_bias) = walk.space(), ctx.needs_input_grad[:3]
        grad_hidden = torch.empty_like(walk.hidden) if to_hidden else None
        grad_weight = torch.zeros_like(walk.weight) if to_weight else None
        grad_bias = torch.zeros_like(walk.bias) if to_bias else None
        for rows, grad in walk:  # logits at first, turned into their gradient in place
            for part, z in walk.blocks(rows, grad):
                shifted = z.sub_(top[part].unsqueeze(1))
                if slope is None:
                    shifted.exp_().mul_(level[part].unsqueeze(1))
                else:
                    exp = torch.exp(shifted, out=space[: len(z)])
                    torch.addcmul(level[part].unsqueeze(1), shifted, slope[part].unsqueeze(1), out=shifted).mul_(exp)
                z.scatter_(1, target[part].unsqueeze(1), own[part].unsqueeze(1))
            if to_hidden:
                torch.mm(grad, walk.weight, out=grad_hidden[rows])
            if to_weight:
                grad_weight.addmm_(grad.T, walk.hidden[rows])
            if to_bias:
                grad_bias.addmv_(grad.T, walk.heat[rows].reciprocal())
        return (
            grad_hidden.div_(walk.heat.unsqueeze(1)).to(hidden.dtype) if to_hidden else None,
            grad_weight.to(weight.dtype) if to_weight else None,
            grad_bias.to(bias.dtype) if to_bias else None,
            *[None] * 4,
        )


def coefficients(grad_logp, grad_entropy, logp, entropy, rest) -> tuple[Tensor, Tensor, Tensor | None]:
    """∂loss/∂z_v of a token is e^{d_v}·(level + slope·d_v), and `own` where v is the target; slope None means 0.

    From ∂logp/∂z_v = [v = target] − p_v and ∂H/∂z_v = −p_v (log p_v + H), with p_v = e^{d_v}/(1 + r). Where the target
    is the arg-max, 1 − p is r/(1 + r), which keeps its digits.
    """
    norm, log_norm, prob = 1 + rest, rest.log1p(), logp.exp()
    grad_logp = torch.zeros_like(logp) if grad_logp is None else grad_logp
    own = grad_logp * torch.where(logp == -log_norm, rest / norm, 1 - prob)
    level = -grad_logp / norm
    if grad_entropy is None:
        return own, level, None
    own = own - grad_entropy * prob * (logp + entropy)
    return own, level - grad_entropy * (entropy - log_norm) / norm, -grad_entropy / norm


def fused_head(
    hidden: Tensor,
    weight: Tensor,
    target: Tensor,
    temperature: Tensor,
    bias: Tensor | None = None,
    *,
    with_sums: bool = False,
    elements: tuple[int, int] | None = None,
) -> TokenStatistics:
    """Log-prob of `target` and exact entropy of softmax((hidden·weightᵀ + bias) / temperature).

    hidden [N, D]; weight [V, D]; target [N] int64; temperature [N] > 0; bias [V] or None. The arithmetic is fp32
    whatever the inputs (fp64 if they are fp64). Differentiable in hidden, weight and bias through `logp` and `entropy`.
    `elements`: logits per chunk and per block, if not those of the device.
    """
    elements = elements or elements_on(hidden.device)
    with torch.autocast(hidden.device.type, enabled=False):
        return TokenStatistics(*_FusedHead.apply(hidden, weight, bias, target, temperature, elements, with_sums))
