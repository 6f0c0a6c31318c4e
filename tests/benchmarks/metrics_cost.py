"""What measuring costs: a rollout step with every metric against one with the mean entropy alone, turn by turn; and the
seconds it takes to summarise a stored step of a million tokens.

    python -m tests.benchmarks.metrics_cost [ROUNDS]

All trainers take the same steps on the same prompts, at a rate at which the policy stays put. The lean one samples
without E[S], scores nothing again and computes no metric but entropy/mean; the others compute everything and score no
prompt, a quarter (the default of storage.measure_change_share) or all of them again. Printed is the median over rounds
of (time with everything) / (time with the mean alone, in the same round).
"""

import contextlib
import statistics
import sys
import tempfile
import time
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pandas as pd

import workbench as wb
from workbench.metrics.registry import masked_mean
from workbench.metrics.stored import summarise
from workbench.rollout import NativeEngine
from workbench.training import trainer as training
from workbench.training.trainer import Trainer

SETTING = {"optimiser.learning_rate": 1e-9, "evaluation.sets": []}
SHARES = (0.0, 0.25, 1.0)
SEQUENCES, LENGTH = 1000, 1000
PIECES = np.array(["7", "+", " the", " wait", " because", "\\frac", " of", "=", ".", " x"], dtype=object)


@contextlib.contextmanager
def mean_entropy_alone():
    generate = NativeEngine.generate

    def without_sums(self, *arguments, **options):
        return generate(self, *arguments, **(options | {"discriminator": False}))

    def mean(rollouts):
        return {"entropy/mean": float(masked_mean(rollouts.tokens.entropy))}

    with (
        patch.object(NativeEngine, "generate", without_sums),
        patch.object(training, "step_metrics", mean),
        patch.object(training, "update_metrics", lambda rollouts: {}),
    ):
        yield


def seconds(trainer: Trainer, step: int) -> tuple[float, float]:
    """Wall and processor time of a step."""
    wall, processor = time.perf_counter(), time.process_time()
    trainer.step(step)
    return time.perf_counter() - wall, time.process_time() - processor


def step_ratios(rounds: int) -> None:
    lean = Trainer(wb.preset("cpu", SETTING | {"storage.measure_change_share": 0}))
    full = {share: Trainer(wb.preset("cpu", SETTING | {"storage.measure_change_share": share})) for share in SHARES}
    taken = []
    for step in range(1, rounds + 2):
        with mean_entropy_alone():
            one = seconds(lean, step)
        taken.append((one, {share: seconds(trainer, step) for share, trainer in full.items()}))
    of_lean = statistics.median(one[0] for one, _ in taken[1:])
    print(f"step with the mean entropy alone: {of_lean:.2f} s; with every metric, by share of prompts scored again:")
    for share in SHARES:
        for clock, name in enumerate(("wall", "processor")):
            ratios = sorted(every[share][clock] / one[clock] for one, every in taken[1:])
            low, high = ratios[len(ratios) // 4], ratios[-1 - len(ratios) // 4]
            print(f"  {share:4.0%} {name:9} × {statistics.median(ratios):.3f}, middle half {low:.3f} to {high:.3f}")


def million_tokens(folder: Path) -> tuple[Path, Path]:
    """A stored step with every column that training writes."""
    rng = np.random.default_rng(0)
    count = SEQUENCES * LENGTH
    correct = rng.random(SEQUENCES) < 0.4
    sequences = pd.DataFrame(
        {"prompt": np.arange(SEQUENCES) // 8, "group": np.arange(SEQUENCES) // 8, "length": LENGTH,
         "reward": correct.astype("float32"), "correct": correct, "finished": True,
         "prompt_text": "question", "text": "answer", "derivation": "steps"}
    )  # fmt: skip
    old = -rng.gamma(0.5, 0.4, count).astype("float32")
    logp = old + 0.1 * rng.standard_normal(count).astype("float32")
    after = np.repeat(np.where(rng.random(SEQUENCES) < 0.25, 0, np.nan).astype("float32"), LENGTH)
    entropy = rng.gamma(0.6, 0.6, count).astype("float32")
    tokens = pd.DataFrame(
        {"sequence": np.repeat(np.arange(SEQUENCES), LENGTH), "position": np.tile(np.arange(LENGTH), SEQUENCES),
         "token": rng.integers(0, 150_000, count), "piece": PIECES[rng.integers(0, len(PIECES), count)],
         "rollout_logp": old, "old_logp": old, "logp": logp, "ratio": np.exp(logp - old), "update": 0,
         "clip_low": np.float32(0.2), "clip_high": np.float32(0.2), "weight": np.float32(1), "entropy": entropy,
         "expected_discriminator": 0.01 * entropy, "advantage": np.repeat(correct - 0.4, LENGTH).astype("float32"),
         "entropy_after": 0.98 * entropy + after, "logp_after": logp + after}
    )  # fmt: skip
    paths = folder / "sequences.parquet", folder / "tokens.parquet"
    for path, frame in zip(paths, (sequences, tokens), strict=True):
        frame.to_parquet(path, compression="zstd")
    return paths


def summary_seconds(repeats: int = 3) -> None:
    with tempfile.TemporaryDirectory() as folder:
        paths = million_tokens(Path(folder))
        taken = []
        for _ in range(repeats):
            start = time.perf_counter()
            values = summarise(*(pd.read_parquet(path) for path in paths))
            taken.append(time.perf_counter() - start)
    print(f"a stored step of {SEQUENCES * LENGTH:,} tokens, reading included: {len(values)} metrics in")
    print(f"  {', '.join(f'{each:.2f} s' for each in taken)}")


if __name__ == "__main__":
    summary_seconds()
    step_ratios(int(sys.argv[1]) if len(sys.argv) > 1 else 15)
