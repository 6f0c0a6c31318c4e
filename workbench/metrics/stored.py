"""The metrics of a stored rollout step, computed anew from its two tables as data frames, whoever trained the run."""

from __future__ import annotations

import pandas as pd
import torch

from workbench.metrics.step import change_metrics, step_metrics, update_metrics
from workbench.metrics.token_classes import TokenClasses, classify
from workbench.tables import Column, Rollouts, Table

UPDATED = {"logp", "old_logp", "clip_low", "clip_high"}
"""Token columns without which nothing is known of the step's updates."""


def rollouts_from_frames(sequences: pd.DataFrame, tokens: pd.DataFrame) -> Rollouts:
    """The two tables as in training, without the token ids of the prompts. Raises `ValueError` unless the tokens stand
    sequence by sequence, as `length` says."""
    texts = [name for name in tokens if name.endswith("piece")]
    rollouts = Rollouts([], _table(sequences), _table(tokens.drop(columns=texts)))
    if not rollouts.sequences.length.sum() == len(tokens) or not tokens["sequence"].is_monotonic_increasing:
        raise ValueError(
            "the token table does not hold the sequences' tokens in their order; sort by sequence, position"
        )
    return rollouts


def summarise(sequences: pd.DataFrame, tokens: pd.DataFrame, classes: TokenClasses | None = None) -> dict[str, float]:
    """Every metric that the tables allow, by name: those of `step_metrics`, `update_metrics` and `change_metrics`.

    Columns as in `workbench.tables`; needed are `length, group, reward, advantage` and `sequence, position, entropy,
    old_logp, advantage`, whatever else there is adds metrics. With `piece` tokens are classed by `classes`.
    """
    rollouts = rollouts_from_frames(sequences, tokens)
    if "piece" in tokens:
        label = torch.from_numpy(classify(tokens["piece"], classes))
        rollouts = rollouts.with_tokens(token_class=label)
    updated = update_metrics(rollouts) if set(rollouts.tokens) >= UPDATED else {}
    return step_metrics(rollouts) | updated | change_metrics(rollouts)


def _table(frame: pd.DataFrame) -> Table:
    return Table(**{str(name): _column(values) for name, values in frame.items()})


def _column(values: pd.Series) -> Column:
    """Numbers and truth values as tensors that share nothing with the frame; anything else as text."""
    if pd.api.types.is_numeric_dtype(values) or pd.api.types.is_bool_dtype(values):
        return torch.from_numpy(values.to_numpy(copy=True))
    return values.astype(str).tolist()
