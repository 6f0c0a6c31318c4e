"""Splitting a rollout batch: into mini-batches (one optimiser update each), those into micro-batches (one forward),
and these among the ranks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from workbench import ranks
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


def micro_batches(rollouts: Rollouts, budget: int) -> list[Tensor]:
    """Consecutive rows of sequences [S] in as few parts as `budget` tokens allow, equally many for every rank, the
    largest part as small as it can be. A part's tokens are its responses' and, once each, its prompts'.

    Order is kept, so a group stays together and its prompt is computed once. A sequence that exceeds the budget is a
    part of its own. With many ranks the last parts may be empty.
    """
    lengths = rollouts.sequences.length.tolist()
    prompts = rollouts.sequences.prompt.tolist()
    own = [len(prompt) for prompt in rollouts.prompts]
    starts = _split(lengths, prompts, own, budget)
    parts = -(-len(starts) // ranks.count()) * ranks.count()
    low, high = sum(lengths) // parts, budget
    while low < high:  # the least capacity that still needs no more parts
        middle = (low + high) // 2
        tried = _split(lengths, prompts, own, middle)
        low, high, starts = (low, middle, tried) if len(tried) <= parts else (middle + 1, high, starts)
    rows = torch.arange(len(lengths), device=rollouts.sequences.length.device)
    return [*rows.tensor_split(starts[1:]), *[rows[:0]] * (parts - len(starts))]


def _split(lengths: list[int], prompts: list[int], prompt_lengths: list[int], capacity: int) -> list[int]:
    """First row of each part when rows are taken in order until `capacity` is reached."""
    starts, load, last = [], 0, None
    for row, (length, prompt) in enumerate(zip(lengths, prompts, strict=True)):
        cost = length if prompt == last else length + prompt_lengths[prompt]
        if not starts or load + cost > capacity:
            starts.append(row)
            load, cost = 0, length + prompt_lengths[prompt]
        load, last = load + cost, prompt
    return starts


@dataclass
class Pass:
    """One forward pass of this rank over the sequences `rows`. A `blank` one computes on what another rank counts, for
    the weights of a divided model come together only if every rank computes; nothing of it may be used."""

    rows: Tensor
    blank: bool

    def counted(self, values: Tensor) -> Tensor:
        return values[:0] if self.blank else values


def passes(rollouts: Rollouts, budget: int) -> list[Pass]:
    """This rank's micro-batches, as many as every other's. Concatenated over the ranks they are `rollouts` in order."""
    parts = micro_batches(rollouts, budget)
    own = [parts[place] for place in ranks.share(len(parts))]
    first = torch.zeros_like(rollouts.sequences.length[:1])
    return [Pass(rows if len(rows) else first, blank=not len(rows)) for rows in own]


def joined(own: list[Pass], measured: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Columns of the batch [N or S, …] out of those of each of this rank's passes; on all ranks."""

    def column(name: str) -> Tensor:
        return torch.cat([one.counted(columns[name]) for one, columns in zip(own, measured, strict=True)])

    return ranks.gathered({name: column(name) for name in measured[0]})


def by_passes(rollouts: Rollouts, budget: int, measure: Callable[[Rollouts], dict[str, Tensor]]) -> dict[str, Tensor]:
    """`measure` of the micro-batches, each computed on one rank: columns of the whole batch, on all ranks."""
    own = passes(rollouts, budget)
    return joined(own, [measure(rollouts.select_sequences(one.rows)) for one in own])


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
