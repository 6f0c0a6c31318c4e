"""The collapse warning on stored runs of the bundled policy: false alarms and lead time.

    python -m tests.benchmarks.collapse

Reads the entropy curves of `tests/directions` (every arm and seed) and, if they are there, the runs of outputs/runs.
Window, horizon and threshold are one of six choices tried on all of the former (70 runs), the one with the fewest false
alarms: the numbers are of the runs it was chosen on.
"""

import json
from pathlib import Path

import numpy as np
import pandas as pd

from workbench.metrics.collapse import warning_record
from workbench.store import list_runs

CURVES = Path(__file__).parents[1] / "directions" / "curves.json"


def told(name: str, record: pd.DataFrame) -> str:
    counts = record["verdict"].value_counts().to_dict()
    fell = record["collapsed"].notna()
    lead = record["lead"].dropna()
    leads = f"lead {lead.median():.0f} steps (range {lead.min():.0f} to {lead.max():.0f})" if len(lead) else "no lead"
    alarms = f"{counts.get('false alarm', 0)} false alarms in {(~fell).sum()} runs without collapse"
    in_time = f"{fell.sum()} collapse, {len(lead)} of them warned in time"
    return f"{name}: {len(record)} runs, {in_time}, {leads}; {alarms}; {counts}"


def main() -> None:
    runs = json.loads(CURVES.read_text()).values()
    for name, wanted in (("seed 0", lambda s: s == 0), ("other seeds", lambda s: s != 0)):
        curves = {
            f"{r['arm']}/{r['seed']}": np.array(r["curves"]["entropy/mean"], float) for r in runs if wanted(r["seed"])
        }
        if curves:
            print(told(f"directions, {name}", warning_record(curves)))
    stored = {run.id: run.metrics.get("entropy/mean", pd.Series(dtype=float)).to_numpy() for run in list_runs()}
    if stored := {name: values for name, values in stored.items() if len(values)}:
        print(told("stored runs", warning_record(stored)))


if __name__ == "__main__":
    main()
