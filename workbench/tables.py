"""The two tables everything leans on: `sequences` (one row per response) and `tokens` (one row per response token).

There is no padding: columns are 1-D tensors of equal length (or lists of strings), and the two tables share the key
`tokens.sequence -> row of sequences`. Tokens are stored sequence by sequence, in order of position, so segment
operations need only the lengths. Column names, here and on disk, are listed in `SEQUENCE_COLUMNS` and `TOKEN_COLUMNS`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor

Column = Tensor | list[str]

SEQUENCE_COLUMNS = {
    "prompt": "int: index of the prompt in the rollout batch",
    "prompt_id": "int: row of the training set the prompt stands in",
    "sample": "int: number of the response among those to its prompt",
    "group": "int: responses sharing a baseline have the same group",
    "length": "int: response tokens, end mark included",
    "reward": "float32: scalar reward",
    "correct": "bool: the verifier's verdict",
    "answer": "str: the response's final answer; '' if none was found",
    "offline": "bool: written by someone else and put in the place of a sampled response",
    "advantage": "float32: sequence advantage, before token-level shaping",
    "temperature": "float32: sampling temperature",
    "score_temperature": "float32: temperature at which the trainer's log-probs and entropy are taken",
    "finished": "bool: ended by an end-of-sequence token (False: truncated)",
    "prompt_text": "str: decoded prompt",
    "text": "str: decoded response",
}
TOKEN_COLUMNS = {
    "sequence": "int: row of `sequences`",
    "position": "int: 0 is the first response token",
    "token": "int: vocabulary id",
    "piece": "str: decoded text of the token",
    "rollout_logp": "float32, nats: log-prob under the distribution the sampler drew from",
    "old_logp": "float32, nats: log-prob under the policy before this step's updates, at the sampling temperature",
    "logp": "float32, nats: log-prob when the token was last trained on, before that update",
    "current_entropy": "float32, nats: entropy at that moment, of the policy about to be updated",
    "update": "int: which of the step's updates trained on the token, from 0; −1: none",
    "ratio": "float32: importance ratio at that moment, as the surrogate used it",
    "clip_low": "float32: ε_low that held for the token",
    "clip_high": "float32: ε_high that held for the token",
    "weight": "float32: weight of the token's surrogate; 0 if masked out of the loss",
    "top1_token": "int: likeliest token where this one was drawn, −1 if not known; top2_… the next likely, and so on",
    "top1_piece": "str: its text",
    "top1_logp": "float32, nats: its log-prob, of the same distribution as `rollout_logp`",
    "ref_logp": "float32, nats: log-prob under the reference policy",
    "entropy": "float32, nats: full-vocabulary entropy at the sampling temperature, before this step's updates",
    "expected_discriminator": "float32, nats: E[S] = H·Σp² + Σp²·log p, taken with `entropy` (arXiv 2602.03392)",
    "advantage": "float32: token advantage after shaping",
    "entropy_after": "float32, nats: entropy after the step's updates; NaN outside storage.measure_change_share",
    "logp_after": "float32, nats: log-prob then",
    "entropy_before": "float32, nats: as `entropy`, by the pass that gave `entropy_after`, where the sampler's differs",
    "logp_before": "float32, nats: log-prob then",
}


class Table(Mapping):
    """Named columns of equal length. Reading: `table["reward"]` or `table.reward`; `with_columns` returns a new table.

    Raises `ValueError` when a column is not 1-D or its length differs from the others.
    """

    def __init__(self, **columns: Column):
        self._columns: dict[str, Column] = {}
        for name, column in columns.items():
            if isinstance(column, Tensor) and column.dim() != 1:
                raise ValueError(f"column '{name}' must be 1-D, got shape {tuple(column.shape)}")
            if self._columns and len(column) != len(self):
                raise ValueError(f"column '{name}' has {len(column)} rows, the table has {len(self)}")
            self._columns[name] = column

    def __len__(self) -> int:
        return len(next(iter(self._columns.values()), ()))

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __getitem__(self, name: str) -> Column:
        return self._columns[name]

    def __contains__(self, name: object) -> bool:
        return name in self._columns

    def __getattr__(self, name: str) -> Column:
        columns = self.__dict__.get("_columns", {})  # none yet in a table that is being unpickled
        try:
            return columns[name]
        except KeyError:
            raise AttributeError(f"no column '{name}'; the table has {sorted(columns)}") from None

    def with_columns(self, **columns: Column) -> Table:
        return Table(**{**self._columns, **columns})

    def without(self, *names: str) -> Table:
        """The other columns."""
        return Table(**{name: column for name, column in self._columns.items() if name not in names})

    def select(self, rows: Tensor) -> Table:
        """Rows by index (int64) or mask (bool), in the order given."""
        index = rows.nonzero().squeeze(1) if rows.dtype == torch.bool else rows
        picked = index.tolist() if any(isinstance(c, list) for c in self._columns.values()) else ()
        return Table(
            **{
                name: [column[i] for i in picked] if isinstance(column, list) else column[index]
                for name, column in self._columns.items()
            }
        )


def concatenate(tables: list[Table]) -> Table:
    """The rows of all tables, which have the same columns."""

    def column(name: str) -> Column:
        columns = [table[name] for table in tables]
        return list(chain(*columns)) if isinstance(columns[0], list) else torch.cat(columns)

    return Table(**{name: column(name) for name in tables[0]})


def token_index(lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Keys of a token table from response lengths [S]: (`sequence` [N], `position` [N]), both int64."""
    sequence = torch.repeat_interleave(torch.arange(len(lengths), device=lengths.device), lengths)
    starts = lengths.cumsum(0) - lengths
    return sequence, torch.arange(len(sequence), device=lengths.device) - starts[sequence]


@dataclass
class Rollouts:
    """One rollout batch: prompt token ids and the two tables. S sequences, N response tokens.

    `prompts[i]` holds the token ids (int64) of prompt i; `sequences.prompt` indexes into it.
    """

    prompts: list[Tensor]
    sequences: Table
    tokens: Table

    def cpu(self) -> Rollouts:
        """The same rollouts in the machine's memory."""
        tables = (
            Table(**{name: column.cpu() if isinstance(column, Tensor) else column for name, column in table.items()})
            for table in (self.sequences, self.tokens)
        )
        return Rollouts([prompt.cpu() for prompt in self.prompts], *tables)

    def with_tokens(self, **columns: Column) -> Rollouts:
        """The same rollouts with columns added to (or replaced in) the token table."""
        return Rollouts(self.prompts, self.sequences, self.tokens.with_columns(**columns))

    def with_sequences(self, **columns: Column) -> Rollouts:
        """The same rollouts with columns added to (or replaced in) the sequence table."""
        return Rollouts(self.prompts, self.sequences.with_columns(**columns), self.tokens)

    def broadcast_to_tokens(self, values: Tensor) -> Tensor:
        """Per-sequence values [S] -> per-token values [N]."""
        return values[self.tokens.sequence]

    def sum_by_sequence(self, values: Tensor) -> Tensor:
        """Per-token values [N] -> per-sequence sums [S]."""
        return _segment_sum(values, self.tokens.sequence, len(self.sequences))

    def mean_by_sequence(self, values: Tensor) -> Tensor:
        """Per-token values [N] -> per-sequence means [S]."""
        return self.sum_by_sequence(values) / self.sequences.length

    def group_size(self) -> Tensor:
        """Number of sequences in each sequence's group, per sequence [S]."""
        group, size = self._groups(self.sequences.reward)
        return size[group]

    def group_mean(self, values: Tensor) -> Tensor:
        """Per-sequence values [S] -> the mean of each sequence's group, per sequence [S]."""
        group, size = self._groups(values)
        return (_segment_sum(values, group, len(size)) / size)[group]

    def group_std(self, values: Tensor) -> Tensor:
        """Unbiased standard deviation (n − 1) of each sequence's group, per sequence [S]; 0 in a group of one."""
        group, size = self._groups(values)
        squared = (values - self.group_mean(values)).square()
        variance = _segment_sum(squared, group, len(size)) / (size - 1).clamp(min=1)
        return variance.sqrt()[group]

    def group_is_constant(self, values: Tensor) -> Tensor:
        """Whether all of a group's values [S] are equal, per sequence [S] bool; exact, unlike a spread of zero."""
        group, size = self._groups(values)
        low, high = (
            torch.empty(len(size), dtype=values.dtype, device=values.device).scatter_reduce_(
                0, group, values, bound, include_self=False
            )
            for bound in ("amin", "amax")
        )
        return (low == high)[group]

    def select_sequences(self, rows: Tensor) -> Rollouts:
        """The sequences at index `rows` (int64) or mask (bool), with their tokens; prompts are kept as they are."""
        index = rows.nonzero().squeeze(1) if rows.dtype == torch.bool else rows
        lengths = self.sequences.length
        starts = lengths.cumsum(0) - lengths
        sequence, position = token_index(lengths[index])
        tokens = self.tokens.select(starts[index][sequence] + position).with_columns(sequence=sequence)
        return Rollouts(self.prompts, self.sequences.select(index), tokens)

    def group_quantile(self, values: Tensor, q: float) -> Tensor:
        """The q-quantile of each sequence's group (linear between order statistics), per sequence [S]."""
        group, size = self._groups(values)
        order = values.argsort(stable=True)
        order = order[group[order].argsort(stable=True)]  # by group, ascending within
        place = ((size.cumsum(0) - size).double() + q * (size.double() - 1)).clamp(0, len(values) - 1)
        low, high = (values[order[index.long()]] for index in (place.floor(), place.ceil()))
        return (low + (high - low) * (place - place.floor()).to(values.dtype))[group]

    def _groups(self, values: Tensor) -> tuple[Tensor, Tensor]:
        group = self.sequences.group
        return group, torch.bincount(group).to(values.dtype)


class NonFiniteError(FloatingPointError):
    """A loss, gradient or log-prob that is not finite. `rollouts` is the batch it happened in, as far as it was made;
    None where it was raised by something that does not know."""

    def __init__(self, message: str, rollouts: Rollouts | None = None):
        super().__init__(message)
        self.rollouts = rollouts


def require_finite(rollouts: Rollouts, column: str, values: Tensor, remedy: str) -> None:
    """Raise `NonFiniteError` naming the first response token at which `values` [N] is not finite, with the batch."""
    bad = ~torch.isfinite(values)
    if not bool(bad.any()):
        return
    at = int(bad.nonzero()[0])
    row = int(rollouts.tokens.sequence[at])
    prompt, sample = int(rollouts.sequences.prompt[row]), int(rollouts.sequences.sample[row])
    raise NonFiniteError(
        f"non-finite {column} of {int(bad.sum())} of {len(bad)} tokens, the first at prompt {prompt}, sample {sample}, "
        f"position {int(rollouts.tokens.position[at])}; {remedy}",
        rollouts.with_tokens(**{column: values.detach()}),
    )


def _segment_sum(values: Tensor, segment: Tensor, count: int) -> Tensor:
    return torch.zeros(count, dtype=values.dtype, device=values.device).index_add_(0, segment, values)
