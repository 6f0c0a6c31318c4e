"""TRL: `trainer_state.json` of the output folder or its newest checkpoint, and `completions/*.parquet`."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pandas as pd

from workbench.store.importers.foreign import ForeignRun, groups, merged, translated

_KNOWN = {"step", "prompt", "completion", "advantage"}


def find(source: Path) -> Path | None:
    """The newest trainer_state.json under `source`, or `source` itself."""
    if source.name == "trainer_state.json":
        return source
    found = list(source.glob("trainer_state.json")) + list(source.glob("checkpoint-*/trainer_state.json"))
    return max(found, key=_last_step, default=None)


def read(source: Path, rollouts: Path | None = None) -> ForeignRun:
    """Raises `ValueError` for a file that is not a trainer's state."""
    path = find(source)
    state = json.loads(path.read_text(encoding="utf-8")) if path else {}
    if not isinstance(state.get("log_history"), list):
        raise ValueError(f"{path or source} has no log_history; it is not a trainer_state.json of TRL")
    run = ForeignRun("trl", {key: value for key, value in state.items() if isinstance(value, int | float | str)})
    rows = (entry for entry in state["log_history"] if isinstance(entry, dict) and "step" in entry)
    run.metrics = merged(translated(int(row["step"]), row) for row in rows)
    run.notes.append("a step is what TRL calls one: an optimiser update, of which a batch of rollouts may have several")
    folder = path.parent if source.is_file() else source
    for file in sorted((rollouts or folder / "completions").glob("*.parquet")):
        for step, frame in pd.read_parquet(file).groupby("step"):
            run.sequences[int(step)] = _sequences(frame.reset_index(drop=True))
    return run


def _sequences(frame: pd.DataFrame) -> pd.DataFrame:
    """Responses of one step. With several reward functions the weights are not recorded, so neither is the reward."""
    prompts, texts = frame["prompt"].map(_text), frame["completion"].map(_text)
    out = groups(prompts).assign(prompt_text=prompts, text=texts)
    rewards = [name for name in frame if name not in _KNOWN and pd.api.types.is_numeric_dtype(frame[name])]
    if len(rewards) == 1:
        out["reward"] = frame[rewards[0]].astype("float32")
    for name in rewards if len(rewards) > 1 else ():
        out[f"reward_{re.sub(r'[^A-Za-z0-9_]+', '_', name)}"] = frame[name].astype("float32")
    if "advantage" in frame:
        out["advantage"] = frame["advantage"].astype("float32")
    return out


def _text(value) -> str:
    """A prompt or completion as text; conversations come as lists of messages."""
    if isinstance(value, str):
        return value
    return "\n".join(str(message.get("content", "")) for message in value)


def _last_step(path: Path) -> int:
    try:
        return int(json.loads(path.read_text(encoding="utf-8")).get("global_step", 0))
    except ValueError:
        return 0
