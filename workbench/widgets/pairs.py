"""Two runs on the same prompts as if they were one, so that the token view shows them side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property

import numpy as np
import pandas as pd

from workbench.store import Run, StoredRollouts
from workbench.widgets.token_data import load

PREFIX_TOKENS = 200_000
"""Tokens up to which responses are compared token by token."""


class PairedRuns:
    """Steps both runs kept with prompts in common; their rollouts are those to common prompts, each named by its run.

    The token column `difference` is the entropy of a token minus the mean entropy of the other run after the same
    prompt and the same tokens before; NaN where the other run never was there.
    """

    def __init__(self, first: Run, second: Run):
        self.runs = (first, second)
        self.id = f"{first.id} | {second.id}"
        self.path = first.path

    @property
    def metrics(self) -> pd.DataFrame:
        return self.runs[0].metrics

    @cached_property
    def rollout_steps(self) -> list[int]:
        """Kept steps at which both runs answered a prompt of the same text."""
        return sorted(self._texts)

    @cached_property
    def _texts(self) -> dict[int, list[str]]:
        """Texts of the prompts in common by step, in the first run's order."""
        first, second = (run.prompts() for run in self.runs)
        if "prompt_text" not in first or "prompt_text" not in second:
            return {}
        shared = first.merge(second[["step", "prompt_text"]].drop_duplicates(), on=["step", "prompt_text"])
        return {int(step): list(texts.unique()) for step, texts in shared.groupby("step")["prompt_text"]}

    def prompts(self) -> pd.DataFrame:
        rows = [(step, text) for step, texts in self._texts.items() for text in texts]
        return pd.DataFrame(rows, columns=["step", "prompt_text"])

    def sequences(self, step: int) -> pd.DataFrame:
        return self.rollouts(step).sequences

    def token_columns(self, step: int, names: Sequence[str]) -> pd.DataFrame:
        return self.rollouts(step).tokens.filter(names)

    def rollouts(self, step: int) -> StoredRollouts:
        """Both runs' responses to the prompts in common, prompt by prompt."""
        common = self._texts[step]
        parts, tokens, start = [], [], 0
        for run in self.runs:
            tables = load(run, step)
            rows = np.flatnonzero(tables.sequences["prompt_text"].isin(common))
            part = tables.sequences.iloc[rows].assign(name=run.id)
            part["group"] = part["prompt_text"].map({text: number for number, text in enumerate(common)})
            parts.append(part)
            own = tables.tokens[tables.tokens["sequence"].isin(rows)].copy()
            own["sequence"] = np.searchsorted(rows, own["sequence"].to_numpy()) + start
            own["run"] = len(tokens)
            tokens.append(own)
            start += len(rows)
        sequences = pd.concat(parts, ignore_index=True)
        joined = pd.concat(tokens, ignore_index=True)
        if len(joined) <= PREFIX_TOKENS and "entropy" in joined and "token" in joined:
            joined["difference"] = differences(joined, sequences["group"].to_numpy())
        return _alternating(StoredRollouts(sequences, joined.drop(columns="run")))


def _alternating(rollouts: StoredRollouts) -> StoredRollouts:
    """Prompt by prompt, a response of the first run, one of the second, and so on."""
    sequences, tokens = rollouts.sequences, rollouts.tokens
    turn = sequences.groupby(["group", "name"]).cumcount()
    order = np.lexsort((np.arange(len(sequences)), turn, sequences["group"]))
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    tokens = tokens.assign(sequence=place[tokens["sequence"].to_numpy()])
    tokens = tokens.sort_values(["sequence", "position"], kind="stable", ignore_index=True)
    return StoredRollouts(sequences.iloc[order].reset_index(drop=True), tokens)


def differences(tokens: pd.DataFrame, group: np.ndarray) -> np.ndarray:
    """Entropy of each token minus the other run's mean entropy after the same prompt and tokens [N]; `tokens` has
    `run` (0 or 1), `sequence`, `position`, `token`, `entropy`; `group` [S] tells prompts apart."""
    prefix = _prefixes(tokens, group)
    means = tokens["entropy"].groupby([tokens["run"], prefix]).mean()
    other = pd.MultiIndex.from_arrays([1 - tokens["run"].to_numpy(), prefix])
    return tokens["entropy"].to_numpy(dtype=float) - means.reindex(other).to_numpy(dtype=float)


def _prefixes(tokens: pd.DataFrame, group: np.ndarray) -> np.ndarray:
    """A number for each (prompt, tokens before) [N]; equal ones get equal numbers."""
    known: dict[tuple[int, int], int] = {}
    out, state, last = np.empty(len(tokens), dtype=np.int64), 0, -1
    columns = zip(tokens["sequence"].to_numpy(), tokens["token"].to_numpy(), strict=True)
    for place, (sequence, token) in enumerate(columns):
        if sequence != last:
            state, last = known.setdefault((-1, int(group[sequence])), len(known)), sequence
        out[place] = state
        state = known.setdefault((state, int(token)), len(known))
    return out


def by_sharing(tokens: pd.DataFrame) -> str:
    """One sentence on how far two runs' responses go together."""
    if "difference" not in tokens:
        return "Not recorded: what a comparison token by token needs (token ids and entropy)."
    shared = tokens["difference"].notna()
    mean = tokens.loc[shared, "difference"].abs().mean()
    size = f"; there their entropies differ by {mean:.3f} nats on average" if not math.isnan(mean) else ""
    return f"{shared.mean():.0%} of the tokens follow a text that the other run wrote as well{size}."
