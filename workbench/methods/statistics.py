"""Statistics and selections over tokens or sequences that are right for any order and on any number of devices.

Whatever a hook computes over the batch goes through these functions. Sums are taken in fp64, ties and random draws are
decided by `token_key`, a token's identity; so the outcome is the same for any order of the sequences. A hook sees the
tables of all devices (`workbench.ranks`), so nothing has to be added up across them.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from workbench.tables import Rollouts


def total(values: Tensor) -> Tensor:
    """Σ values [N] (a number or bool each); an fp64 scalar."""
    return values.double().sum()


def mean(values: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean of values [N] where mask [N] (bool); fp64 scalar, NaN when nothing is selected."""
    chosen = values if mask is None else values[mask]
    return total(chosen) / total(torch.ones_like(chosen, dtype=torch.float64))


def std(values: Tensor, mask: Tensor | None = None) -> Tensor:
    """Population standard deviation of values [N] where mask [N]; fp64 scalar."""
    chosen = (values if mask is None else values[mask]).double()
    return mean((chosen - mean(chosen)).square()).sqrt()


def largest(values: Tensor, count: int, rollouts: Rollouts, among: Tensor | None = None) -> Tensor:
    """Mask [N] of the `count` largest token values, out of those in the mask `among` [N] (all).

    Equal values are taken in the order of `token_key`. Fewer than `count` candidates are all taken.
    """
    among = torch.ones_like(values, dtype=torch.bool) if among is None else among
    mine, key = values[among].double(), token_key(rollouts)[among]
    chosen = among.clone()
    if count < len(mine):
        by_key = key.argsort()
        first = by_key[mine[by_key].argsort(descending=True, stable=True)[:count]]
        chosen[among] = torch.zeros_like(mine, dtype=torch.bool).index_fill_(0, first, True)
    return chosen


def quantile(values: Tensor, q: float, mask: Tensor | None = None) -> Tensor:
    """The q-quantile (0 ≤ q ≤ 1) of values [N] where mask [N], linear between order statistics as in
    `torch.quantile`, of any number of values; NaN when nothing is selected."""
    every = (values if mask is None else values[mask]).sort().values
    if len(every) == 0:
        return torch.full((), math.nan, dtype=values.dtype, device=values.device)
    place = q * (len(every) - 1)
    low, high = every[math.floor(place)], every[math.ceil(place)]
    return low + (high - low) * (place - math.floor(place))


def sequence_key(rollouts: Rollouts) -> Tensor:
    """[S] int64, a sequence's identity within its step: (prompt, sample)."""
    return rollouts.sequences.prompt * (1 << 20) + rollouts.sequences.sample


def token_key(rollouts: Rollouts) -> Tensor:
    """[N] int64, a token's identity within its step: (prompt, sample, position)."""
    return rollouts.broadcast_to_tokens(sequence_key(rollouts)) * (1 << 20) + rollouts.tokens.position


def uniform(key: Tensor, *salt: int) -> Tensor:
    """Uniform [0, 1) fp64 draws [N], a function of each `key` (int64) and the salt alone (splitmix64)."""
    state = _mix(torch.tensor(0, device=key.device))
    for number in salt:
        state = _mix(state ^ number)
    return _logical_shift(_mix(_mix(key) ^ state), 11).double() * 2.0**-53


def _mix(x: Tensor) -> Tensor:
    """The finaliser of splitmix64 on int64, whose multiplication wraps around as the unsigned one does."""
    x = x - 7046029254386353131  # + 0x9E3779B97F4A7C15
    x = (x ^ _logical_shift(x, 30)) * -4658895280553007687  # 0xBF58476D1CE4E5B9
    x = (x ^ _logical_shift(x, 27)) * -7723592293110705685  # 0x94D049BB133111EB
    return x ^ _logical_shift(x, 31)


def _logical_shift(x: Tensor, bits: int) -> Tensor:
    return (x >> bits) & ((1 << (64 - bits)) - 1)
