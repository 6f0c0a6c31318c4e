"""The papers' strong predictions on entropy, as functions of runs, and their verdicts.

    python -m tests.directions.predictions        # writes the table of README.md from curves.json

An order A > B is the difference of the arms' final entropies, paired by seed; a target is the ratio of the mean entropy
over the last third of the run to it. Both come with a 95 % t interval over the seeds.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import stats

from tests.directions.arms import SEEDS, config
from tests.directions.run import load_curves

README = Path(__file__).parent / "README.md"
MARKER = "<!-- table, written by predictions.py -->"
HELD = 0.2
"""A target counts as held within this relative distance; published runs stay within 16 % of theirs."""


@dataclass(frozen=True)
class Order:
    """Final entropy of `higher` above that of `lower`."""

    paper: str
    higher: str
    lower: str

    def __str__(self) -> str:
        return f"{self.higher} > {self.lower}"


@dataclass(frozen=True)
class Held:
    """Entropy of the last third of the run within 20 % of `target` nats, or of `of_initial` times the first step's."""

    paper: str
    arm: str
    target: float = 0.0
    of_initial: float = 0.0

    def __str__(self) -> str:
        return f"{self.arm} stays at " + (f"{self.of_initial} H₀" if self.of_initial else f"{self.target} nats")


@dataclass(frozen=True)
class Moves:
    """Entropy at the end above (`up`) or below its first value."""

    paper: str
    arm: str
    up: bool

    def __str__(self) -> str:
        return f"{self.arm}: entropy {'rises' if self.up else 'falls'}"


CLIP, PAPER_26 = "2511.05993, Fig. 3", "2509.26114"
PREDICTIONS = [
    Order(CLIP, "clip_higher", "clip_free"),
    Order(CLIP, "clip_free", "grpo"),
    Order(CLIP, "clip_tighter", "grpo"),
    Order(CLIP, "clip_higher", "grpo"),
    Order(CLIP, "grpo", "clip_lower"),
    Order("2511.05993, Fig. 4", "grpo N=1", "grpo N=2"),
    Order("2511.05993, Fig. 4", "grpo N=2", "grpo"),
    Order("2511.05993, Fig. 12", "clip_higher", "clip_higher N=2"),
    Order("2511.05993, Fig. 12", "clip_higher N=2", "grpo N=1"),
    Order("2511.05993, Fig. 5", "A<=0", "grpo"),
    Order("2511.05993, Fig. 5", "grpo", "A>=0"),
    Moves("2511.05993, Fig. 5", "A<=0", True),
    Order("2511.05993, Fig. 6", "grpo", "bonus -0.01"),
    Order("2511.05993, Fig. 6", "bonus 0.002", "grpo"),
    Order("2511.05993, Fig. 6", "bonus 0.01", "bonus 0.002"),
    Order("2511.05993, Fig. 6", "bonus 0.05", "bonus 0.01"),
    Held("2505.22312; 2511.05993, Fig. 5", "adaptive_entropy 0.2", target=0.2),
    Held("2511.05993, Fig. 5", "pos_adv_reweight 0.2", target=0.2),
    Held("2511.15248", "entropic 0.2", target=0.2),
    Held("2510.10959", "aer 0.4", of_initial=0.4),
    Held("2510.10959", "aer 0.4, sign rule", of_initial=0.4),
    Order("2506.01347", "nsr", "psr"),
    Order("2506.01347", "w_reinforce", "psr"),
    Order("2506.01347", "grpo", "psr"),
    Order("2505.22617", "clip_cov", "grpo"),
    Order("2505.22617", "kl_cov", "grpo"),
    Moves(PAPER_26, "random reward", False),
    Moves(PAPER_26, "random reward + clip_low_only", True),
    Moves(PAPER_26, "random reward + clip_high_only", False),
    Order(PAPER_26, "random reward + clip_low_only", "random reward"),
    Order(PAPER_26, "random reward", "random reward + clip_high_only"),
]


def entropy(curves: dict, arm: str) -> np.ndarray:
    """[seeds, steps] nats."""
    return np.array([curves[config(arm, seed).content_hash]["curves"]["entropy/mean"] for seed in SEEDS])


def final(curves: dict, arm: str) -> np.ndarray:
    """[seeds]: mean of the last ten steps."""
    return entropy(curves, arm)[:, -10:].mean(1)


def effects(curves: dict, prediction: Order | Held | Moves) -> np.ndarray:
    """[seeds]: a difference in nats, or a ratio to the target."""
    if isinstance(prediction, Order):
        return final(curves, prediction.higher) - final(curves, prediction.lower)
    runs = entropy(curves, prediction.arm)
    if isinstance(prediction, Moves):
        return final(curves, prediction.arm) - runs[:, :3].mean(1)
    target = prediction.target or prediction.of_initial * runs[:, 0]
    return runs[:, -runs.shape[1] // 3 :].mean(1) / target


def interval(values: np.ndarray) -> tuple[float, float]:
    """95 % t interval of the mean over seeds."""
    half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5
    return values.mean() - half, values.mean() + half


def verdict(prediction: Order | Held | Moves, low: float, high: float) -> str:
    if isinstance(prediction, Held):
        inside, outside = low > 1 - HELD and high < 1 + HELD, high < 1 - HELD or low > 1 + HELD
        return "reproduced" if inside else "contradicted" if outside else "inconclusive"
    if isinstance(prediction, Moves) and not prediction.up:
        low, high = -high, -low
    return "reproduced" if low > 0 else "contradicted" if high < 0 else "inconclusive"


def table(curves: dict) -> str:
    rows = ["| prediction | paper | measured | 95 % interval | verdict |", "|---|---|---|---|---|"]
    for prediction in PREDICTIONS:
        values = effects(curves, prediction)
        low, high = interval(values)
        kind = "H / target" if isinstance(prediction, Held) else "ΔH"
        measured = f"{kind} {values.mean():+.3f}" if kind == "ΔH" else f"{kind} {values.mean():.2f}"
        rows.append(
            f"| {prediction} | {prediction.paper} | {measured} | {low:+.3f} … {high:+.3f} "
            f"| {verdict(prediction, low, high)} |"
        )
    return "\n".join(rows)


if __name__ == "__main__":
    text = README.read_text()
    head, _, _ = text.partition(MARKER)
    README.write_text(f"{head}{MARKER}\n\n{table(load_curves())}\n")
    print(table(load_curves()))
