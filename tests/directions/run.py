"""Trains all arms, every arm's first seed first, and keeps their curves in `curves.json`; done runs are skipped.

python -m tests.directions.run [JOBS]
"""

import json
import os
import sys
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from tempfile import TemporaryDirectory

os.environ["OMP_NUM_THREADS"] = "1"  # one run per core, before torch is imported

from tests.directions.arms import ARMS, CHECKS, SEEDS, config
from workbench.store import open_run
from workbench.training import train_run

CURVES = Path(__file__).parent / "curves.json"
KEPT = ("entropy/mean", "reward/mean", "clip/low_fraction", "clip/high_fraction")


def curve(arm: str, seed: int) -> dict[str, list[float]]:
    with TemporaryDirectory() as root:
        metrics = open_run(train_run(config(arm, seed), root, log=lambda line: None)).metrics
    return {name: [round(float(value), 5) for value in metrics[name]] for name in KEPT}


def load_curves() -> dict[str, dict]:
    """Content hash of the config -> {arm, seed, curves}."""
    return json.loads(CURVES.read_text()) if CURVES.exists() else {}


def main(jobs: int) -> None:
    done = load_curves()
    cells = [(arm, seed) for seed in SEEDS for arm in ARMS | CHECKS if config(arm, seed).content_hash not in done]
    with ProcessPoolExecutor(jobs) as pool:
        running = {pool.submit(curve, *cell): cell for cell in cells}
        for number, future in enumerate(as_completed(running), 1):
            arm, seed = running[future]
            done[config(arm, seed).content_hash] = {"arm": arm, "seed": seed, "curves": future.result()}
            CURVES.write_text(json.dumps(done))
            print(f"{number}/{len(cells)}  {arm}, seed {seed}", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else os.cpu_count())
