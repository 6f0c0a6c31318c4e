"""The papers' strong predictions on entropy, and their verdicts on the arms of `arms.py`.

    python -m tests.directions.predictions        # writes the tables of README.md from curves.json

An order A > B is the difference of the arms' final entropies, paired by seed; a target is the ratio of the mean entropy
over the last third of the run to it. Both come with a 95 % t interval over the seeds; see `workbench.study.effects` and
`workbench.study.claims`.
"""

import math
from pathlib import Path

import numpy as np

from tests.directions.arms import ARMS, CHECKS, SEEDS, config
from tests.directions.run import load_curves
from workbench.study.claims import Claim, evaluate
from workbench.study.effects import ENTROPY, Effect, Held, Moves, Order, final

README = Path(__file__).parent / "README.md"

CLIP, PAPER_26 = "2511.05993, Fig. 3", "2509.26114"
PREDICTIONS = [
    (CLIP, Order("clip_higher", "clip_free")),
    (CLIP, Order("clip_free", "grpo")),
    (CLIP, Order("clip_tighter", "grpo")),
    (CLIP, Order("clip_higher", "grpo")),
    (CLIP, Order("grpo", "clip_lower")),
    ("2511.05993, Fig. 4", Order("grpo N=1", "grpo N=2")),
    ("2511.05993, Fig. 4", Order("grpo N=2", "grpo")),
    ("2511.05993, Fig. 12", Order("clip_higher", "clip_higher N=2")),
    ("2511.05993, Fig. 12", Order("clip_higher N=2", "grpo N=1")),
    ("2511.05993, Fig. 5", Order("A<=0", "grpo")),
    ("2511.05993, Fig. 5", Order("grpo", "A>=0")),
    ("2511.05993, Fig. 5", Moves("A<=0", True)),
    ("2511.05993, Fig. 6", Order("grpo", "bonus -0.01")),
    ("2511.05993, Fig. 6", Order("bonus 0.002", "grpo")),
    ("2511.05993, Fig. 6", Order("bonus 0.01", "bonus 0.002")),
    ("2511.05993, Fig. 6", Order("bonus 0.05", "bonus 0.01")),
    ("2505.22312; 2511.05993, Fig. 5", Held("adaptive_entropy 0.2", target=0.2)),
    ("2511.05993, Fig. 5", Held("pos_adv_reweight 0.2", target=0.2)),
    ("2511.15248", Held("entropic 0.2", target=0.2)),
    ("2510.10959", Held("aer 0.4", of_initial=0.4)),
    ("2510.10959", Held("aer 0.4, sign rule", of_initial=0.4)),
    ("2506.01347", Order("nsr", "psr")),
    ("2506.01347", Order("w_reinforce", "psr")),
    ("2506.01347", Order("grpo", "psr")),
    ("2505.22617", Order("clip_cov", "grpo")),
    ("2505.22617", Order("kl_cov", "grpo")),
    (PAPER_26, Moves("random reward", False)),
    (PAPER_26, Moves("random reward + clip_low_only", True)),
    (PAPER_26, Moves("random reward + clip_high_only", False)),
    (PAPER_26, Order("random reward + clip_low_only", "random reward")),
    (PAPER_26, Order("random reward", "random reward + clip_high_only")),
]
CHECKED = [
    ("2511.15248", Held("entropic 0.2, gains of the curves", target=0.2)),
    ("2511.05993, Fig. 5", Held("pos_adv_reweight 0.2, Δ = 0.25", target=0.2)),
    ("2510.10959", Held("aer 0.4, sign rule, all prompts", of_initial=0.4)),
]


class Curves:
    """The arms' curves as kept in curves.json, read like stored runs."""

    def __init__(self, curves: dict[str, dict]):
        self.curves = curves

    def seeds(self, arm: str) -> set[int]:
        return {seed for seed in SEEDS if config(arm, seed).content_hash in self.curves}

    def curve(self, arm: str, metric: str, seed: int) -> np.ndarray:
        return np.array(self.curves[config(arm, seed).content_hash]["curves"][metric])


def table(curves: dict, predictions: list[tuple[str, Effect]]) -> str:
    rows = ["| prediction | paper | measured | 95 % interval | verdict |", "|---|---|---|---|---|"]
    for paper, effect in predictions:
        found = evaluate(Claim(str(effect), str(effect), paper, effect), Curves(curves))
        ratio = isinstance(effect, Held)
        measured, low, high = (f"{x:.2f}" if ratio else f"{x:+.3f}" for x in (found.mean, found.low, found.high))
        kind = "H / target" if ratio else "ΔH"
        rows.append(f"| {effect} | {paper} | {kind} {measured} | {low} … {high} | {found.verdict} |")
    return "\n".join(rows)


def at_reward(entropy: np.ndarray, reward: np.ndarray, level: float) -> float:
    """Entropy where the reward first reaches `level`, both as means over five steps; NaN where it never does."""
    smooth = np.ones(5) / 5
    reached = np.flatnonzero(np.convolve(reward, smooth, "valid") >= level)
    return float(np.convolve(entropy, smooth, "valid")[reached[0]]) if len(reached) else math.nan


def arms_table(curves: dict) -> str:
    """What every arm did: means over the seeds, and how many of them reached the reward."""
    rows = ["| arm | final entropy | final reward | entropy at reward 0.5 | at 0.6 |", "|---|---|---|---|---|"]
    read = Curves(curves)
    for arm in ARMS | CHECKS:
        runs = [
            [read.curve(arm, metric, seed) for metric in (ENTROPY, "reward/mean")] for seed in sorted(read.seeds(arm))
        ]
        entropy, reward = (np.mean([final(run[part]) for run in runs]) for part in (0, 1))
        cells = [f"{entropy:.3f}", f"{reward:.2f}"]
        for level in (0.5, 0.6):
            there = [value for run in runs if not math.isnan(value := at_reward(*run, level))]
            cells.append(f"{np.mean(there):.3f} ({len(there)} of {len(runs)})" if there else "never")
        rows.append(f"| {arm} | {' | '.join(cells)} |")
    return "\n".join(rows)


def main() -> None:
    curves = load_curves()
    parts = {"predictions": table(curves, PREDICTIONS), "checks": table(curves, CHECKED), "arms": arms_table(curves)}
    text = README.read_text()
    for name, written in parts.items():
        start, end = f"<!-- {name}, written by predictions.py -->\n", f"<!-- end of {name} -->"
        before, _, rest = text.partition(start)
        text = f"{before}{start}\n{written}\n\n{end}{rest.partition(end)[2]}"
    README.write_text(text)
    print(*parts.values(), sep="\n\n")


if __name__ == "__main__":
    main()
