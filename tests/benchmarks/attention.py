"""Where plain matrix products beat torch's SDPA on CPU: the ratio behind `workbench.policy.attention.SHORT_CONTEXT`.

    python tests/benchmarks/attention.py

Both kernels run in turn on the same tensors (4 heads of 32, about 2,500 queries as in a micro-batch, causal mask);
forward and backward, fastest of several rounds. A ratio above 1 means products are faster.
"""

import time

import torch

from workbench.policy import attention
from workbench.policy.attention import additive_mask, masked_attention

QUERIES, HEADS, DIM, ROUNDS = 2_500, 4, 32, 20


def seconds(length: int, short_context: int) -> float:
    """Forward and backward of sequences of `length`, with products below `short_context` keys and SDPA above."""
    attention.SHORT_CONTEXT = short_context
    shape = (max(1, QUERIES // length), HEADS, length, DIM)
    leaves = [torch.randn(shape).requires_grad_() for _ in range(3)]
    grad = torch.randn(shape)
    mask = additive_mask(torch.ones(length, length, dtype=torch.bool).tril(), torch.float32)
    best = float("inf")
    for _ in range(ROUNDS):
        start = time.perf_counter()
        torch.autograd.grad(masked_attention(*leaves, mask, DIM**-0.5), leaves, grad)
        best = min(best, time.perf_counter() - start)
    return best


def main() -> None:
    print(f"{torch.get_num_threads()} threads\n{'keys':>6} {'products ms':>12} {'SDPA ms':>9} {'ratio':>6}")
    for length in (16, 32, 64, 128, 256, 512, 1024):
        products, sdpa = seconds(length, 10**9), seconds(length, 0)
        print(f"{length:6} {1000 * products:12.1f} {1000 * sdpa:9.1f} {sdpa / products:6.2f}")


if __name__ == "__main__":
    main()
