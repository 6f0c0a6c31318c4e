"""Curves published in papers, shipped as small JSON files with their source beside the numbers."""

import difflib
import json
from pathlib import Path

import pandas as pd

FOLDER = Path(__file__).parent / "published"


def published_curve(name: str = "2511.05993-grpo-n4-entropy") -> pd.DataFrame:
    """A published curve as a data frame with `step` (int), `value` (in `attrs["unit"]`) and `label` (str).

    `attrs` holds `source`, `unit` and `note` of the file. Raises ValueError naming the nearest curve that exists.
    """
    names = sorted(path.stem for path in FOLDER.glob("*.json"))
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1, cutoff=0) or names
        raise ValueError(f"there is no published curve {name!r}; the nearest is {near[0]!r}.")
    record = json.loads((FOLDER / f"{name}.json").read_text())
    frame = pd.DataFrame({"step": range(1, len(record["value"]) + 1), "value": record["value"]})
    frame["label"] = record["label"]
    frame.attrs |= {key: record[key] for key in ("source", "unit", "note")}
    return frame
