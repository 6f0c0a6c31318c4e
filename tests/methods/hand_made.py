"""Small rollout batches written out by hand, in fp64."""

import torch

from workbench.tables import Rollouts, Table, token_index


def hand_made(correct, lengths=None, sequences=None, tokens=None) -> Rollouts:
    """One row of `correct` (0 or 1) per group; `lengths` per response, by default 1; further columns as lists.

    The reward is `correct`, prompt i has id 10 + i, every token has advantage 1, log-prob −1 and entropy 0.5.
    """
    size = len(correct[0])
    flat = [bool(value) for row in correct for value in row]
    group = torch.arange(len(correct)).repeat_interleave(size)
    length = torch.tensor(lengths or [1] * len(flat))
    sequence, position = token_index(length)
    even = torch.ones(len(sequence), dtype=torch.float64)
    columns = {
        "prompt": group,
        "prompt_id": group + 10,
        "group": group,
        "sample": torch.arange(len(flat)) % size,
        "length": length,
        "correct": torch.tensor(flat),
        "reward": torch.tensor(flat, dtype=torch.float64),
        "temperature": torch.ones(len(flat), dtype=torch.float64),
    } | {name: column_of(values) for name, values in (sequences or {}).items()}
    columns.setdefault("advantage", columns["reward"])
    at_tokens = {"advantage": even, "old_logp": -even, "logp": -even, "rollout_logp": -even, "entropy": 0.5 * even}
    at_tokens |= {name: column_of(values) for name, values in (tokens or {}).items()}
    prompts = [torch.tensor([1])] * len(correct)
    return Rollouts(prompts, Table(**columns), Table(sequence=sequence, position=position, **at_tokens))


def column_of(values):
    if isinstance(values[0], str):
        return list(values)
    return torch.tensor(values, dtype=torch.float64 if isinstance(values[0], float) else None)
