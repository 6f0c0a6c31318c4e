"""Milliseconds of one rollout step on this machine: sampling, scoring, update; tokens per second; share of matmul peak.

    python tests/benchmarks/rollout_step.py [FIELD=VALUE]...

Overrides apply to the `cpu` preset. Every row comes from the same process and the same steps; the median over steps is
reported, so a disturbed step does not decide. FLOPs are counted as 2 per weight and token forward, 4 backward, the head
included, attention left out (below 5 % at these lengths); peak is the best of three fp32 matrix products of 2048³.
"""

import statistics
import sys
import time

import torch

import workbench as wb
from workbench.config import parse_overrides
from workbench.training.trainer import Trainer

WARM_UP, STEPS = 3, 15


def matmul_peak() -> float:
    """FLOP/s of a large fp32 product."""
    a, b = torch.randn(2, 2048, 2048)
    best = float("inf")
    for _ in range(4):
        start = time.perf_counter()
        a @ b
        best = min(best, time.perf_counter() - start)
    return 2 * 2048**3 / best


def forward_flops(trainer: Trainer, rows: int) -> float:
    """Of `rows` packed input rows: every weight once; the tied embedding counts as the head."""
    return 2.0 * rows * sum(parameter.numel() for parameter in trainer.policy.parameters)


def main() -> None:
    config = wb.preset("cpu", {"training.old_logp": "trainer"} | parse_overrides(sys.argv[1:]))
    trainer = Trainer(config)
    results = [trainer.step(step) for step in range(1, WARM_UP + STEPS + 1)][WARM_UP:]
    tokens = statistics.median(len(r.rollouts.tokens) for r in results)
    prompts = sum(len(p) for p in results[0].rollouts.prompts)
    sequences = len(results[0].rollouts.sequences)
    rows = prompts + tokens - sequences
    peak = matmul_peak()
    shape = f"{config.rollout.prompts} prompts x {config.rollout.samples} responses of {tokens / sequences:.1f} tokens"
    updates = f"{config.training.updates_per_rollout} updates"
    print(f"{shape}, {updates}, {config.policy.precision}, {torch.get_num_threads()} threads")
    print(f"matmul peak {peak / 1e9:.0f} GFLOP/s")
    print(f"{'part':10} {'ms':>8} {'tokens/s':>10} {'of peak':>8}")
    passes = {"sampling": 1, "verifying": 0, "scoring": 1, "update": 3}
    total = 0.0
    for part, factor in passes.items():
        seconds = statistics.median(r.timings[f"time/{part}"] for r in results)
        total += seconds if part != "scoring" else 0.0
        share = factor * forward_flops(trainer, rows) / seconds / peak
        print(f"{part:10} {1000 * seconds:8.0f} {tokens / seconds:10.0f} {share:8.1%}")
    print(
        f"{'step':10} {1000 * total:8.0f} {tokens / total:10.0f}   without scoring, as with training.old_logp=rollout"
    )


if __name__ == "__main__":
    main()
