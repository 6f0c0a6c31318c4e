"""Splitting a rollout batch: into mini-batches (one optimiser update each), those into micro-batches (one forward)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from workbench.tables import Rollouts


def mini_batches(rollouts: Rollouts, count: int, seed: int, step: int) -> list[Tensor]:
    """Rows of sequences per update: prompts, shuffled by (seed, step), in `count` equal parts; groups stay whole."""
    prompts = len(rollouts.prompts)
    order = np.random.default_rng([seed, step, prompts]).permutation(prompts)
    part_of = np.empty(prompts, dtype=np.int64)
    for part, members in enumerate(np.array_split(order, count)):
        part_of[members] = part
    part = torch.from_numpy(part_of).to(rollouts.sequences.prompt.device)[rollouts.sequences.prompt]
    return [(part == index).nonzero().squeeze(1) for index in range(count)]


def micro_batches(lengths: Tensor, budget: int) -> list[Tensor]:
    """Consecutive rows [S] of sequences in as few parts as `budget` tokens allow, balanced in tokens.

    Order is kept, so a group stays together and its prompt is computed once. A longer sequence is a part of its own.
    """
    cumulative = lengths.cumsum(0)
    total = int(cumulative[-1])
    parts = max(1, -(-total // budget))
    bounds = torch.searchsorted(cumulative, torch.arange(1, parts, device=lengths.device) * total // parts, right=True)
    rows = torch.arange(len(lengths), device=lengths.device)
    return [part for part in rows.tensor_split(bounds.cpu()) if len(part)]


def distinct_responses(rollouts: Rollouts) -> tuple[Tensor, Tensor]:
    """Rows [D] of the different responses, each the first of its kind, and which of them each sequence is [S].

    Alike means the same tokens to the same prompt at the same `score_temperature`: a policy says the same of them.
    """
    sequences, tokens = rollouts.sequences, rollouts.tokens.token.cpu().numpy()
    ends = sequences.length.cumsum(0).tolist()
    asked = zip(sequences.prompt.tolist(), sequences.score_temperature.tolist(), strict=True)
    spans = zip(asked, [0, *ends[:-1]], ends, strict=True)
    seen: dict[tuple, int] = {}
    first = [seen.setdefault((key, tokens[start:end].tobytes()), row) for row, (key, start, end) in enumerate(spans)]
    return torch.tensor(first, device=sequences.length.device).unique(return_inverse=True)
