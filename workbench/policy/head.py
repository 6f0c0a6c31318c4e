"""The fused head: hidden states -> log-prob and exact entropy per token, never materialising tokens × vocabulary.

It walks the tokens in chunks, computes the chunk's logits in fp32, and recomputes them in backward. It is
differentiable in `logp` and in `entropy`, so the same function trains, scores and analyses.

Entropy is computed in the max-shifted, non-cancelling form. With m the arg-max, d_v = z_v − z_m ≤ 0 and
r = Σ_{v≠m} e^{d_v}, it is H = log(1 + r) + Σ_v p_v·(−d_v): a sum of non-negative terms, accurate to fp32 rounding down
to the collapsed regime, where logsumexp − Σ p·z loses percents.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

CHUNK_ELEMENTS = 1 << 22
"""Logits per chunk (tokens × vocabulary): 16 MB in fp32, small beside a model, large enough for efficient GEMMs."""


GPU_CHUNK_ELEMENTS = 1 << 28
"""The same on a GPU, where a chunk must hold enough rows to fill the device: 1 GB in fp32. Not tuned yet."""


def elements_per_chunk(device: torch.device) -> int:
    return GPU_CHUNK_ELEMENTS if device.type == "cuda" else CHUNK_ELEMENTS


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


def distribution(logits: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Exact softmax quantities of logits [n, V]: (p [n, V], d = z − max z [n, V], log Σ e^d [n], entropy [n]).

    log p_v = d_v − log Σ e^d. `logits` is overwritten with d.
    """
    top, argmax = logits.max(-1, keepdim=True)
    shifted = logits.sub_(top)
    exp = shifted.exp()
    rest = exp.scatter(-1, argmax, 0.0).sum(-1)
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


class _FusedHead(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden, weight, bias, target, temperature, chunk, with_sums):
        ctx.save_for_backward(hidden, weight, bias, target, temperature)
        ctx.chunk = chunk
        wide = torch.promote_types(hidden.dtype, torch.float32)
        logp, entropy = (torch.empty(len(target), dtype=wide, device=hidden.device) for _ in range(2))
        sum_p2, sum_p2_logp = (torch.empty_like(logp) if with_sums else None for _ in range(2))
        for rows in chunks(len(target), chunk):
            logits = scaled_logits(hidden[rows], weight, bias, temperature[rows])
            probs, shifted, log_norm, entropy[rows] = distribution(logits)
            logp[rows] = shifted.gather(1, target[rows].unsqueeze(1)).squeeze(1) - log_norm
            if with_sums:
                squares = probs * probs
                sum_p2[rows] = squares.sum(-1)
                sum_p2_logp[rows] = torch.linalg.vecdot(squares, shifted) - log_norm * sum_p2[rows]
        return logp, entropy, sum_p2, sum_p2_logp

    @staticmethod
    def backward(ctx, grad_logp, grad_entropy, _sum_p2, _sum_p2_logp):
        hidden, weight, bias, target, temperature = ctx.saved_tensors
        grad_hidden = torch.empty_like(hidden)
        grad_weight = torch.zeros_like(weight, dtype=grad_logp.dtype)
        grad_bias = None if bias is None else torch.zeros_like(bias, dtype=grad_logp.dtype)
        for rows in chunks(len(target), ctx.chunk):
            logits = scaled_logits(hidden[rows], weight, bias, temperature[rows])
            probs, shifted, log_norm, entropy = distribution(logits)
            # ∂logp/∂z_v = [v = target] − p_v and ∂H/∂z_v = −p_v (log p_v + H), with log p_v = shifted − log_norm
            factor = shifted.add_((entropy - log_norm).unsqueeze(1)).mul_(-grad_entropy[rows].unsqueeze(1))
            grad = probs.mul_(factor.sub_(grad_logp[rows].unsqueeze(1)))
            grad.scatter_add_(1, target[rows].unsqueeze(1), grad_logp[rows].unsqueeze(1))
            grad.div_(temperature[rows].to(grad.dtype).unsqueeze(-1))
            grad_hidden[rows] = (grad @ weight.to(grad.dtype)).to(hidden.dtype)
            grad_weight.addmm_(grad.T, hidden[rows].to(grad.dtype))
            if grad_bias is not None:
                grad_bias += grad.sum(0)
        grad_bias = None if bias is None else grad_bias.to(bias.dtype)
        return grad_hidden, grad_weight.to(weight.dtype), grad_bias, None, None, None, None


def fused_head(
    hidden: Tensor,
    weight: Tensor,
    target: Tensor,
    temperature: Tensor,
    bias: Tensor | None = None,
    *,
    with_sums: bool = False,
    chunk_elements: int | None = None,
) -> TokenStatistics:
    """Log-prob of `target` and exact entropy of softmax((hidden·weightᵀ + bias) / temperature).

    hidden [N, D]; weight [V, D]; target [N] int64; temperature [N] > 0; bias [V] or None. The arithmetic is fp32
    whatever the inputs (fp64 if they are fp64). Differentiable in hidden, weight and bias through `logp` and `entropy`.
    """
    chunk = max(1, (chunk_elements or elements_per_chunk(hidden.device)) // weight.shape[0])
    with torch.autocast(hidden.device.type, enabled=False):
        return TokenStatistics(*_FusedHead.apply(hidden, weight, bias, target, temperature, chunk, with_sums))
