"""What a method asks of a critic, and what methods with one compute from its values along a response."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from workbench.config import METHODS
from workbench.tables import Rollouts

if TYPE_CHECKING:
    from workbench.config import RunConfig


@dataclass(frozen=True)
class CriticConfig:
    """A critic: a second causal LM that starts as the policy, with an output head of its own that starts at zero.

    head: "vocabulary", Q(s, w_<t, ·) per token of the vocabulary, of which the sampled one is regressed; or "value",
    V(s, w_<t). learning_rate: constant rate of its AdamW. max_grad_norm: its gradient's largest L2 norm. huber: δ, below
    which the error is squared. polyak: what its target copy keeps of itself per update; None: no copy.
    """

    head: Literal["vocabulary", "value"]
    learning_rate: float
    max_grad_norm: float
    huber: float
    polyak: float | None = None


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
        if "advantage" in vars(METHODS[entry["name"]]):
            raise ValueError(
                f"methods list '{entry['name']}' before '{name}', whose advantages replace what it shaped; put '{name}' "
                "first"
            )
