"""The entropy ledger: which tokens a step's measured ΔH comes from, and what a first-order forecast says of them.

Every division puts each scored token in exactly one part, so the parts of a division add up to the ΔH of the step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from workbench.metrics import partitions
from workbench.metrics.change import entropy_change, first_order_push
from workbench.metrics.registry import shares_by_class
from workbench.metrics.stored import rollouts_from_frames
from workbench.metrics.token_classes import NAMES, TokenClasses, classify
from workbench.tables import Rollouts

TOP = 8
"""Parts of an open-ended division (prompts, token strings) that are listed by name; the rest is summed."""
PREDICTION_COLUMNS = {"logp", "clip_low", "clip_high", "expected_discriminator"}

QUADRANTS = ("A < 0, π < e^−H", "A < 0, π ≥ e^−H", "A = 0", "A > 0, π < e^−H", "A > 0, π ≥ e^−H")
"""In the order of `partitions.QUADRANTS`; π is the token's probability before the step."""

Division = Callable[[Rollouts], tuple[np.ndarray, list[str]]]


@dataclass(frozen=True)
class Ledger:
    """ΔH of one step by parts."""

    table: pd.DataFrame
    """one row per part: part, tokens (count), measured, predicted, residual (nats; NaN where nothing is predicted)"""
    change: float
    """measured ΔH, nats: the sum of `table.measured`"""
    scored: int
    """tokens scored again after the updates, out of `tokens`"""
    tokens: int
    rate: float
    """the one free number of the prediction: the logit step per unit that fits the scored tokens best"""
    r2: float
    """share of Σ (H_after − H_before)² over tokens that the prediction explains; it can be below 0 only by rounding"""
    part: np.ndarray
    """row of `table` each token of the step belongs to [N]; −1 for tokens that were not scored again"""


def missing_for_ledger(tokens: pd.DataFrame) -> str:
    """What a step's tokens lack for a ledger, with the remedy; '' when nothing."""
    if "entropy_after" not in tokens or tokens["entropy_after"].isna().all():
        return (
            "Not recorded: entropy after the step's updates (entropy_after). Train with "
            "storage.measure_change_share above 0 to measure where ΔH comes from."
        )
    return ""


def ledger(sequences: pd.DataFrame, tokens: pd.DataFrame, division: str, classes: TokenClasses | None = None) -> Ledger:
    """The ledger of a stored step by `division`, one of `DIVISIONS`. Columns as in `workbench.tables`.

    Predicted: rate · x_t, x_t = −c_t (S − E[S]) as in `change.first_order_push`, with the rate that fits this step's
    tokens best (least squares through the origin); so the size is fitted, the pattern over tokens is not. Raises
    `ValueError` if the tokens were not scored again, or for an unknown division.
    """
    if lacking := missing_for_ledger(tokens):
        raise ValueError(lacking)
    if division not in DIVISIONS:
        raise ValueError(f"there is no division {division!r}; there are {', '.join(DIVISIONS)}")
    every = rollouts_from_frames(sequences, tokens)
    pieces = tokens["piece"] if "piece" in tokens else pd.Series([""] * len(tokens))
    scored = ~every.tokens.entropy_after.isnan()
    rollouts = Rollouts(every.prompts, every.sequences, every.tokens.select(scored))
    label, names = DIVISIONS[division](rollouts, pieces[scored.numpy()], classes)
    change = entropy_change(rollouts.tokens)
    push = _push(rollouts)
    rate = _rate(push, change)
    measured = _parts(change, label, len(names))
    predicted = _parts(rate * push, label, len(names)) if push is not None else np.full(len(names), np.nan)
    table = pd.DataFrame(
        {
            "part": names,
            "tokens": np.bincount(label, minlength=len(names)),
            "measured": measured,
            "predicted": predicted,
            "residual": measured - predicted,
        }
    )
    r2 = float(1 - (change - rate * push).square().sum() / change.square().sum()) if push is not None else float("nan")
    part = np.full(len(tokens), -1)
    part[scored.numpy()] = label
    return Ledger(table, float(change.mean()), len(change), len(tokens), rate, r2, part)


def spent(sequences: pd.DataFrame, tokens: pd.DataFrame, by: str) -> pd.DataFrame:
    """ΔH of one step by prompt (`by` = "prompt") or token string ("token string"), all of them, most entropy lost
    first: columns part, tokens, measured (nats, adding up to ΔH), per_token (mean H_after − H_before of its tokens)."""
    scored = tokens["entropy_after"].notna().to_numpy()
    before = tokens["entropy_before"] if "entropy_before" in tokens else tokens["entropy"]
    change = (tokens["entropy_after"].astype(float) - before.astype(float))[scored]
    if by == "prompt":
        names = sequences["prompt_text"].to_numpy()[tokens["sequence"].to_numpy()[scored]]
    else:
        names = tokens["piece"].to_numpy()[scored]
    grouped = change.groupby(np.asarray(names, dtype=object), sort=False)
    table = pd.DataFrame({"tokens": grouped.size(), "measured": grouped.sum() / scored.sum()})
    table["per_token"] = grouped.mean()
    return table.rename_axis("part").reset_index().sort_values("measured", ignore_index=True)


def _push(rollouts: Rollouts) -> Tensor | None:
    """x_t per token, 0 for tokens in no update; None where it cannot be computed."""
    if not set(rollouts.tokens) >= PREDICTION_COLUMNS:
        return None
    trained = ~rollouts.tokens.logp.isnan()
    return torch.where(trained, first_order_push(rollouts.tokens), 0.0).nan_to_num(0.0)


def _rate(push: Tensor | None, change: Tensor) -> float:
    """Least squares through the origin; 0 where nothing pushes, NaN where nothing is known of it."""
    if push is None:
        return float("nan")
    power = float(push @ push)
    return float(push @ change) / power if power > 0 else 0.0


def _parts(values: Tensor, label: np.ndarray, count: int) -> np.ndarray:
    return np.array([float(share) for share in shares_by_class(values, torch.from_numpy(label), count)])


def _fixed(classes_of: Callable[[Rollouts], Tensor], names: tuple[str, ...]):
    def divide(rollouts, _pieces, _classes):
        return classes_of(rollouts).numpy(), list(names)

    return divide


def _by_clipping(rollouts, _pieces, _classes):
    if not {"logp", "clip_low", "clip_high"} <= set(rollouts.tokens):
        raise ValueError("Not recorded: the clip bounds that held for each token (clip_low, clip_high, logp).")
    return partitions.clip_class(rollouts.tokens).numpy(), [name.replace("_", " ") for name in partitions.CLIPPING]


def _by_class(_rollouts, pieces, classes):
    return classify(pieces, classes), list(NAMES)


def _by_correctness(rollouts, _pieces, _classes):
    if "correct" not in rollouts.sequences:
        raise ValueError("Not recorded: whether each response is correct.")
    return rollouts.broadcast_to_tokens(rollouts.sequences.correct).long().numpy(), ["incorrect", "correct"]


def _by_prompt(rollouts, _pieces, _classes):
    texts = rollouts.sequences.get("prompt_text")
    if texts is None:  # imported without
        texts = [f"prompt {number}" for number in rollouts.sequences.group.tolist()]
    of_token = np.array(texts, dtype=object)[rollouts.tokens.sequence.numpy()]
    return _largest(of_token, entropy_change(rollouts.tokens).numpy(), "other prompts")


def _by_piece(rollouts, pieces, _classes):
    return _largest(pieces.to_numpy(), entropy_change(rollouts.tokens).numpy(), "other tokens")


def _largest(names: np.ndarray, change: np.ndarray, rest: str) -> tuple[np.ndarray, list[str]]:
    """The `TOP` names with the largest |Σ change|, largest first, and the rest as one part."""
    codes, texts = pd.factorize(names)
    totals = np.bincount(codes, weights=change)
    order = np.argsort(-np.abs(totals), kind="stable")
    place = np.full(len(texts), TOP, dtype=np.int64)
    place[order[:TOP]] = np.arange(min(TOP, len(texts)))
    listed = [str(texts[i]) for i in order[:TOP]]
    label = place[codes]
    return label, [*listed, rest] if len(texts) > TOP else listed


DIVISIONS: dict[str, Callable] = {
    "sign of the advantage": _fixed(lambda r: partitions.sign_class(r.tokens), ("A < 0", "A = 0", "A > 0")),
    "probability quadrant": _fixed(lambda r: partitions.quadrant_class(r.tokens), QUADRANTS),
    "clipping": _by_clipping,
    "token class": _by_class,
    "correctness": _by_correctness,
    "position in the response": _fixed(partitions.decile_class, tuple(f"tenth {d + 1}" for d in range(10))),
    "prompt": _by_prompt,
    "token string": _by_piece,
}
"""Ways to divide a step's tokens: name -> (rollouts, pieces, classes) -> (class of each token, names)."""
