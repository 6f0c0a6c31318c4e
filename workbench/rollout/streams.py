"""Random streams that belong to a sample, not to a process: one (seed, step, prompt, sample) always draws the same.

Batch composition, order and earlier draws play no part, so a resumed or re-batched run samples what it would have.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b

import numpy as np

BLOCK = 32


@dataclass(frozen=True)
class Stream:
    """Names the draws of one rollout batch. `purpose` keeps training and evaluation apart: "train" or a set's name;
    `first_prompt` is the place of the batch's first prompt when a long list is sampled in parts."""

    seed: int
    step: int
    purpose: str = "train"
    first_prompt: int = 0


def request_seed(stream: Stream, prompt: int, sample: int) -> int:
    """Seed (63 bits) of one response for an engine that draws by itself, from (seed, step, purpose, prompt, sample)."""
    name = f"{stream.seed}/{stream.step}/{stream.purpose}/{stream.first_prompt + prompt}/{sample}"
    return int.from_bytes(blake2b(name.encode(), digest_size=8).digest()) >> 1


class UniformBlocks:
    """Uniform [0, 1) draws per sample, made in blocks of positions from one Philox counter stream per sample."""

    def __init__(self, stream: Stream, prompts: int, samples: int):
        purpose = int.from_bytes(blake2b(stream.purpose.encode(), digest_size=8).digest())
        first = stream.first_prompt
        self._generators = [
            np.random.Generator(np.random.Philox(key=[stream.seed, purpose], counter=[0, sample, prompt, stream.step]))
            for prompt in range(first, first + prompts)
            for sample in range(samples)
        ]
        self._start, self._block = 0, np.empty((len(self._generators), 0))

    def at(self, position: int, rows: np.ndarray) -> np.ndarray:
        """float64 [len(rows)] for `position`; positions must be asked for in increasing order."""
        if position >= self._start + self._block.shape[1]:
            self._start = position
            self._block = np.stack([generator.random(BLOCK) for generator in self._generators])
        return self._block[rows, position - self._start]
