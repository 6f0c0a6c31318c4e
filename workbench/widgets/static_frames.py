"""The token view's frames for a page without a kernel: all kept steps, within a budget of bytes.

Numbers of tokens travel packed: base64 of little-endian numbers of the least width that serves.
"""

import base64
import json

import numpy as np

from workbench.widgets.token_data import (
    DECIMALS,
    GROUPS,
    MIN_TOKENS_PER_ROLLOUT,
    ROLLOUTS,
    TOKENS_PER_ROLLOUT,
    clean,
    frame,
    load,
)

STATIC_BYTES = 600_000  # a report has 1 MB beside plotly.js; its figures and tables take the rest
CHARACTERS_PER_TOKEN = 4
UNIT = 10**DECIMALS
MISSING = np.iinfo(np.int16).min  # "not recorded" is not 0


def static_frames(run, groups: int = GROUPS, rollouts: int = ROLLOUTS, budget: int = STATIC_BYTES) -> list[dict]:
    """Frames of kept steps whose JSON takes at most `budget` bytes.

    Long responses are cut first, then steps are thinned evenly; the first and the last stay, whatever they take. Each
    frame says how much of its step it shows.
    """
    steps = list(run.rollout_steps)
    probed = [load(run, step) for step in sorted({steps[0], steps[len(steps) // 2], steps[-1]})]

    def cost(limit: int) -> float:
        """Bytes of a step, by the first, the middle and the last."""
        return sum(_size(_packed(frame(one, one.step, groups, rollouts, limit))) for one in probed) / len(probed)

    limit, bytes_per_step = TOKENS_PER_ROLLOUT, cost(TOKENS_PER_ROLLOUT)
    while bytes_per_step * len(steps) > budget and limit > MIN_TOKENS_PER_ROLLOUT:
        limit = max(MIN_TOKENS_PER_ROLLOUT, limit // 2)
        bytes_per_step = cost(limit)
    chosen = _evenly(steps, int(budget / bytes_per_step))
    frames = [_packed(frame(run, step, groups, rollouts, limit)) for step in chosen]
    sizes, count = list(map(_size, frames)), len(frames)
    while count > 2 and sum(_evenly(sizes, count)) > budget:
        count -= 1
    return _evenly(frames, count)


def _evenly(items: list, count: int) -> list:
    """`count` of the items, at least two, at even distances, first and last among them."""
    if len(items) <= max(2, count):
        return items
    return [items[place] for place in np.linspace(0, len(items) - 1, max(2, count)).round().astype(int)]


def _size(packed: dict) -> int:
    return len(json.dumps(packed, separators=(",", ":")))


def _packed(frame: dict) -> dict:
    """The frame with packed columns and texts no longer than what is shown of the tokens."""
    characters = CHARACTERS_PER_TOKEN * frame["limit"]
    for group in frame["groups"]:
        for rollout in group["rollouts"]:
            rollout["text"] = clean(rollout["text"], characters)
    return frame | {"columns": {name: pack(values) for name, values in frame["columns"].items()}}


def pack(values: np.ndarray) -> dict:
    """`values` as the front-end unpacks them.

    uint32 becomes 16 bits wide where it fits; float32 becomes whole multiples of 1/`unit` in 16 bits, MISSING where it
    is not finite, and stays as it is where a number is too large for that.
    """
    if values.dtype == np.uint32:
        narrow = not len(values) or int(values.max()) <= np.iinfo(np.uint16).max
        return _column(values.astype("<u2" if narrow else "<u4"))
    finite = np.isfinite(values)
    units = np.rint(np.where(finite, values, 0).astype(np.float64) * UNIT)
    if np.abs(units).max(initial=0) > np.iinfo(np.int16).max:
        return _column(np.where(finite, values, np.nan).astype("<f4"))
    return _column(np.where(finite, units, MISSING).astype("<i2")) | {"unit": UNIT}


def _column(values: np.ndarray) -> dict:
    return {"base64": base64.b64encode(values.tobytes()).decode(), "type": values.dtype.str[1:]}
