"""A fixed probe: a few stored responses scored by teacher forcing at every kept checkpoint of a run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import torch

from workbench.policy.model import Policy, load_policy
from workbench.store import Run
from workbench.tables import Rollouts, Table, token_index
from workbench.training.update import score_in_parts

BUDGET = 4096
RESPONSES, TOKENS = 8, 48
FORK, DEAD = 0.5, 0.1
"""A token is a fork from this entropy on, nats, and none any more below that; between the two it keeps what it was."""


def probe_strip(run: Run, responses: int = RESPONSES, tokens: int = TOKENS, at: int | None = None) -> pd.DataFrame:
    """Entropy and log-prob of the probe's tokens at every checkpoint.

    The probe: the first response to each of the first `responses` prompts of kept step `at` (the run's first), up to
    `tokens` tokens. One row per checkpoint and token: `step` (0: before training), `response`, `prompt_text`,
    `position`, `piece`, `entropy` (nats, at the response's temperature), `logp`. Raises ValueError naming what the run
    lacks.
    """
    if not run.checkpoints:
        raise ValueError("Not recorded: checkpoints. Train with a larger storage.keep_checkpoints to keep them.")
    if not run.rollout_steps:
        raise ValueError(f"run {run.id} kept no rollouts to take a probe from.")
    stored = run.rollouts(at or run.rollout_steps[0])
    if "token" not in stored.tokens or "prompt_text" not in stored.sequences:
        raise ValueError("Not recorded: the token ids of the responses; the probe needs them to be scored again.")
    sequences = stored.sequences.reset_index(drop=True).groupby("group", sort=False).head(1).head(responses)
    parts = [load_policy(run.config.policy.model), *(load_policy(str(path)) for path in run.checkpoints.values())]
    frames = [
        _scored(policy, sequences, stored.tokens, tokens).assign(step=step)
        for step, policy in zip([0, *run.checkpoints], parts, strict=True)
    ]
    return pd.concat(frames, ignore_index=True)


def cached_strip(run: Run) -> pd.DataFrame:
    """`probe_strip`, kept beside the run as `probe.parquet` until it has other checkpoints."""
    path = Path(run.path) / "probe.parquet"
    if path.exists():
        strip = pd.read_parquet(path)
        if [0, *run.checkpoints] == sorted(strip["step"].unique()):
            return strip
    strip = probe_strip(run)
    strip.to_parquet(path)
    return strip


def forks(entropy, fork: float = FORK, dead: float = DEAD) -> dict[int, str]:
    """What becomes of the forks of entropy [checkpoints, tokens]: column -> "dies" (a fork at first, dead at last),
    "appears" (dead or undecided at first, a fork at last) or "stays"; other columns are no forks at either end."""
    first, last = np.asarray(entropy, dtype=float)[[0, -1]]
    out = {}
    for column, (before, after) in enumerate(zip(first, last, strict=True)):
        if before >= fork and after < dead:
            out[column] = "dies"
        elif before < fork <= after:
            out[column] = "appears"
        elif before >= fork:
            out[column] = "stays"
    return out


def _scored(policy: Policy, sequences: pd.DataFrame, tokens: pd.DataFrame, longest: int) -> pd.DataFrame:
    own = {
        row: part.sort_values("position").head(longest)
        for row, part in tokens.groupby("sequence")
        if row in sequences.index
    }
    lengths = torch.tensor([len(own[row]) for row in sequences.index])
    ids = torch.from_numpy(np.concatenate([own[row]["token"].to_numpy() for row in sequences.index]))
    sequence, position = token_index(lengths)
    heat = sequences["score_temperature" if "score_temperature" in sequences else "temperature"].to_numpy(copy=True)
    table = Table(prompt=torch.arange(len(sequences)), length=lengths, score_temperature=torch.from_numpy(heat).float())
    prompts = [policy.encode(text) for text in sequences["prompt_text"]]
    rollouts = Rollouts(prompts, table, Table(sequence=sequence, position=position, token=ids))
    scored = score_in_parts(policy, rollouts, BUDGET)
    pieces = np.concatenate([own[row]["piece"].to_numpy() for row in sequences.index])
    texts = np.asarray(sequences["prompt_text"], dtype=object)[sequence.numpy()]
    return pd.DataFrame(
        {"response": sequence.numpy(), "prompt_text": texts, "position": position.numpy(), "piece": pieces,
         "entropy": scored.entropy.numpy(), "logp": scored.logp.numpy()}
    )  # fmt: skip
