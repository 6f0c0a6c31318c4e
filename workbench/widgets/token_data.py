"""What the token view shows of a run, as plain JSON-ready data of bounded size.

A frame is one kept rollout step: its first groups and their first rollouts, in stored order, so that nothing is
selected by outcome. Numbers are rounded to what a reader can use; pieces are stored once per frame and referred to
by index.
"""

import math

import numpy as np
import pandas as pd

GROUPS, ROLLOUTS = 4, 8
TOKENS_PER_ROLLOUT = 512
STATIC_TOKENS = 60_000  # about 1.6 MB of JSON, the budget of a report beside plotly.js
MIN_TOKENS_PER_ROLLOUT = 48
DECIMALS = 3
TOKEN_NUMBERS = ("entropy", "logp", "old_logp", "rollout_logp", "ref_logp", "advantage")


def entropy_ceiling(run) -> float:
    """Upper end of the shared entropy scale in nats: the 99th percentile over the first and last kept step, rounded up
    to the next 0.25, so that one colour means one entropy at every step."""
    steps = run.rollout_steps
    values = [run.rollouts(step).tokens["entropy"] for step in sorted({steps[0], steps[-1]})]
    top = float(np.nanquantile(np.concatenate(values), 0.99))
    return max(0.25, math.ceil(top * 4) / 4) if math.isfinite(top) else 1.0


def header(run) -> dict:
    """What every frame shares: run id, entropy curve, kept steps, colour scale. Raises ValueError without rollouts."""
    if not run.rollout_steps:
        raise ValueError(f"run {run.id} kept no rollouts; set the config's rollout keeping interval and train again.")
    metrics = run.metrics
    curve = metrics[["step", "entropy/mean"]].dropna() if "entropy/mean" in metrics else pd.DataFrame()
    return {
        "run": run.id,
        "steps": [int(step) for step in run.rollout_steps],
        "ceiling": entropy_ceiling(run),
        "curve": [[int(step), _round(value)] for step, value in curve.itertuples(index=False)],
    }


def frame(run, step: int, groups: int = GROUPS, rollouts: int = ROLLOUTS, tokens: int = TOKENS_PER_ROLLOUT) -> dict:
    """One kept step: at most `groups` groups x `rollouts` rollouts, at most `tokens` tokens of each."""
    stored = run.rollouts(step)
    sequences = stored.sequences.reset_index(drop=True)
    members_of = {group: sequences[sequences["group"] == group] for group in sequences["group"].unique()[:groups]}
    wanted = [index for members in members_of.values() for index in members.index[:rollouts]]
    of_sequence = dict(tuple(stored.tokens[stored.tokens["sequence"].isin(wanted)].groupby("sequence", sort=False)))
    pieces: dict[str, int] = {}
    shown = []
    for members in members_of.values():
        rows = [_rollout(row, of_sequence.get(row.Index), pieces, tokens) for row in members[:rollouts].itertuples()]
        shown.append(
            {
                "prompt": str(getattr(members.iloc[0], "prompt_text", "")),
                "size": len(members),
                "flat": bool(members["reward"].nunique() <= 1),
                "mean": _round(members["reward"].mean()),
                "rollouts": rows,
            }
        )
    return {
        "step": int(step),
        "total": len(sequences),
        "total_groups": int(sequences["group"].nunique()),
        "limit": tokens,
        "pieces": list(pieces),
        "groups": shown,
    }


def static_frames(run, groups: int = GROUPS, rollouts: int = ROLLOUTS, budget: int = STATIC_TOKENS) -> list[dict]:
    """Frames of all kept steps within a budget of tokens: long responses are cut first, then steps are thinned evenly
    (first and last stay). Each frame says how much of its step it shows."""
    steps = np.asarray(run.rollout_steps)
    longest = int(run.rollouts(int(steps[-1])).sequences["length"].max())
    per_response = max(MIN_TOKENS_PER_ROLLOUT, budget // (len(steps) * groups * rollouts))
    limit = min(per_response, TOKENS_PER_ROLLOUT)
    affordable = max(2, budget // (groups * rollouts * max(1, min(limit, longest))))
    if len(steps) > affordable:
        steps = steps[np.unique(np.linspace(0, len(steps) - 1, affordable).round().astype(int))]
    return [frame(run, int(step), groups, rollouts, limit) for step in steps]


def _rollout(row, tokens, pieces, limit) -> dict:
    """One response: its sequence-level numbers and its tokens as parallel lists."""
    record = {
        "reward": _round(row.reward),
        "correct": bool(getattr(row, "correct", False)),
        "finished": bool(getattr(row, "finished", True)),
        "advantage": _round(getattr(row, "advantage", None)),
        "length": int(row.length),
        "text": str(getattr(row, "text", "")),
        "tokens": {"piece": []},
    }
    if tokens is None:
        return record
    cut = tokens.sort_values("position")[:limit]
    record["tokens"]["piece"] = [pieces.setdefault(str(piece), len(pieces)) for piece in cut["piece"]]
    for name in TOKEN_NUMBERS:
        if name in cut:
            record["tokens"][name] = [_round(value) for value in cut[name]]
    return record


def _round(value):
    """A number with DECIMALS digits, or None where nothing was recorded: "not recorded" is not 0."""
    if value is None or not math.isfinite(value):
        return None
    return round(float(value), DECIMALS)
