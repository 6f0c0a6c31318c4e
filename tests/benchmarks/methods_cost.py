"""What each method adds to an update: the same rollout batch, updated with and without it, turn by turn.

    python -m tests.benchmarks.methods_cost [ROUNDS]

Timed is everything between scored rollouts and updated weights: rewards, advantages, selections, forward, backward and
optimiser step. Printed are median and range over rounds of (time with the method) / (time without, in the same round),
of processor time, which other work on the machine hardly touches, and the median of wall time.
Methods with a critic train a second model: theirs is another order.
"""

import statistics
import sys
import time

import torch

import workbench as wb
from tests.methods.cases import CASES
from tests.methods.made_up import methods_of
from workbench.config import ConfigError
from workbench.training.advantages import assign_advantages
from workbench.training.trainer import Trainer

SETTING = {"training.old_logp": "trainer", "optimiser.learning_rate": 1e-9, "evaluation.sets": []}
"""A rate at which the policy stays put, so that all rounds do the same work."""


def trainer_for(methods: list) -> Trainer:
    return Trainer(wb.preset("cpu", SETTING | {"methods": methods}))


def seconds(trainer: Trainer, rollouts) -> tuple[float, float]:
    """Processor and wall time of one batch's updates."""
    progress = trainer.collector.begin(1)
    processor, wall = time.process_time(), time.perf_counter()
    batch = assign_advantages(rollouts, trainer.methods)
    trainer.methods.look(batch)
    trainer._update(batch, progress)
    return time.process_time() - processor, time.perf_counter() - wall


def main(rounds: int) -> None:
    torch.set_num_threads(2)
    plain = trainer_for(["grpo"])
    plain.collector.begin(1)
    everything = trainer_for(["grpo", "kl_reference", "clip_v"])
    rollouts = everything._score(plain.collector.collect(1).rollouts)
    for name, case in CASES.items():
        try:
            trainer = trainer_for(methods_of(name, case))
        except ConfigError as error:
            print(f"{name}: left out, {error}")
            continue
        own = trainer._score(rollouts) if trainer.critic else rollouts
        seconds(trainer, own)
        pairs = [(seconds(trainer, own), seconds(plain, rollouts)) for _ in range(rounds)]
        processor, wall = (sorted(a[kind] / b[kind] for a, b in pairs) for kind in (0, 1))
        spread = f"{processor[0]:.3f} to {processor[-1]:.3f}"
        print(
            f"{name:24} {statistics.median(processor):6.3f}   {spread}   wall {statistics.median(wall):.3f}", flush=True
        )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
