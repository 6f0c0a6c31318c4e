"""What methods with a critic compute from its values along a response, and what they refuse."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from workbench.config import METHODS
from workbench.methods.base import Method
from workbench.tables import Rollouts

if TYPE_CHECKING:
    from workbench.config import RunConfig


def next_values(rollouts: Rollouts, values: Tensor, last: Tensor) -> Tensor:
    """Each token's value at the next token of its sequence [N]; the final token's is `last` [S] of its sequence."""
    final = rollouts.tokens.position == rollouts.broadcast_to_tokens(rollouts.sequences.length) - 1
    return torch.where(final, rollouts.broadcast_to_tokens(last).to(values.dtype), values.roll(-1))


def discounted_sums(rollouts: Rollouts, values: Tensor, factor: float) -> Tensor:
    """Σ_{k ≥ 0} factor^k · values_{t+k} within each sequence [N]."""
    lengths = rollouts.sequences.length
    starts = lengths.cumsum(0) - lengths
    out = values.clone()
    for position in range(int(lengths.max()) - 2, -1, -1):
        place = starts[lengths > position + 1] + position
        out[place] += factor * out[place + 1]
    return out


def refuse_shaping_before(name: str, config: RunConfig) -> None:
    """Raise `ValueError` when a method listed before `name` shapes advantages, which `name` then replaces."""
    for entry in config.methods:
        if entry["name"] == name:
            return
        if METHODS[entry["name"]].advantage is not Method.advantage:
            raise ValueError(
                f"methods list '{entry['name']}' before '{name}', whose advantages would replace what it shaped; put "
                f"'{name}' first"
            )
