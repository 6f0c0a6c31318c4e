"""The papers' strong predictions on entropy, and their verdicts on the arms of `arms.py`.

    python -m tests.directions.predictions        # writes the table of README.md from curves.json

An order A > B is the difference of the arms' final entropies, paired by seed; a target is the ratio of the mean entropy
over the last third of the run to it. Both come with a 95 % t interval over the seeds; see `workbench.study.effects` and
`workbench.study.claims`.
"""

from pathlib import Path

import numpy as np

from tests.directions.arms import SEEDS, config
from tests.directions.run import load_curves
from workbench.study.claims import Claim, evaluate
from workbench.study.effects import Held, Moves, Order

README = Path(__file__).parent / "README.md"
MARKER = "<!-- table, written by predictions.py -->"

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


class Curves:
    """The arms' curves as kept in curves.json, read like stored runs."""

    def __init__(self, curves: dict[str, dict]):
        self.curves = curves

    def seeds(self, arm: str) -> set[int]:
        return {seed for seed in SEEDS if config(arm, seed).content_hash in self.curves}

    def curve(self, arm: str, metric: str, seed: int) -> np.ndarray:
        return np.array(self.curves[config(arm, seed).content_hash]["curves"][metric])


def table(curves: dict) -> str:
    rows = ["| prediction | paper | measured | 95 % interval | verdict |", "|---|---|---|---|---|"]
    for paper, effect in PREDICTIONS:
        found = evaluate(Claim(str(effect), str(effect), paper, effect), Curves(curves))
        kind = "H / target" if isinstance(effect, Held) else "ΔH"
        measured = f"{kind} {found.mean:+.3f}" if kind == "ΔH" else f"{kind} {found.mean:.2f}"
        rows.append(f"| {effect} | {paper} | {measured} | {found.low:+.3f} … {found.high:+.3f} | {found.verdict} |")
    return "\n".join(rows)


if __name__ == "__main__":
    text = README.read_text()
    head, _, _ = text.partition(MARKER)
    README.write_text(f"{head}{MARKER}\n\n{table(load_curves())}\n")
    print(table(load_curves()))
