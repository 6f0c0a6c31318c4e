"""A run folder written to the documented format without training: made-up numbers, real files."""

import json
import socket
from pathlib import Path

import numpy as np
import pandas as pd
import psutil

import workbench as wb

STEPS, KEEP_EVERY, PROMPTS, GROUP = 40, 8, 8, 8
HOSTILE = "</script><img src=x onerror=\"document.title='owned'\">"
ATTACKS = [HOSTILE, "\u202etxet\u202c", "\x1b[31mred\x1b[0m", "<a href='javascript:document.title=`owned`'>"]
"""Markup, bidi controls, terminal codes."""
PIECES = ["2", "+", "6", "-", "1", "=", "11", "*", "7", "#", " ", "\n"]


def write_run(folder: Path, steps: int = STEPS, seed: int = 0, hostile: bool = False, length: int = 21) -> Path:
    """Write a finished run of `steps` rollout steps; `hostile` puts HTML into prompts, responses and tokens."""
    rng = np.random.default_rng(seed)
    for name in ("rollouts", "evals", "checkpoints"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(wb.preset("smoke").to_yaml())
    (folder / "provenance.json").write_text(
        json.dumps(
            {"seed": seed, "versions": {"torch": "2.13.0", "python": "3.11"}, "git": {"commit": "abc", "dirty": False}}
        )
    )
    write_status(folder, "finished", step=steps, steps=steps)
    rows = [metrics_row(step, steps, rng) for step in range(1, steps + 1)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for step in range(KEEP_EVERY, steps + 1, KEEP_EVERY):
        sequences, tokens = rollouts(step, steps, rng, hostile, length)
        sequences.to_parquet(folder / "rollouts" / f"{step:06d}.sequences.parquet")
        tokens.to_parquet(folder / "rollouts" / f"{step:06d}.tokens.parquet")
    for step in (0, steps):
        evals(step, steps, rng).to_parquet(folder / "evals" / f"{step:06d}.reduce.parquet")
    return folder


def write_status(folder: Path, state: str, step: int = 0, steps: int = STEPS, reason=None) -> None:
    """Write status.json as the trainer does, in the name of this process."""
    me = psutil.Process()
    status = {"state": state, "step": step, "steps": steps, "reason": reason, "host": socket.gethostname()}
    status |= {"pid": me.pid, "process_started": me.create_time()}
    (folder / "status.json").write_text(json.dumps(status))


def metrics_row(step: int, steps: int, rng) -> dict:
    """One line of metrics.jsonl: entropy falls, reward rises."""
    done = step / steps
    entropy = 0.36 * np.exp(-2.2 * done) + 0.01 * rng.standard_normal()
    return {
        "step": step,
        "entropy/mean": float(entropy),
        "entropy/positive": float(entropy * 0.8),
        "entropy/negative": float(entropy * 1.2),
        "reward/mean": float(0.18 + 0.3 * done + 0.02 * rng.standard_normal()),
        "length/mean": float(21 + 2 * done + 0.3 * rng.standard_normal()),
        "clip/low_fraction": float(0.01 * done + 0.001 * rng.random()),
        "clip/high_fraction": float(0.015 * done + 0.001 * rng.random()),
        "group/zero_variance_fraction": 0.2,
    }


def rollouts(step: int, steps: int, rng, hostile: bool, length: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The two tables of one kept step; the first group has no reward variance."""
    sequences, tokens = [], []
    for index in range(PROMPTS * GROUP):
        prompt = index // GROUP
        correct = bool(rng.random() < 0.2 + 0.3 * step / steps) and prompt != 0
        attack = ATTACKS if hostile else []
        pieces = [*attack, *rng.choice(PIECES, size=length - 1 - len(attack)), "#"]
        entropy = rng.gamma(0.6, 0.6 * np.exp(-2 * step / steps), size=len(pieces)).astype("float32")
        logp = -rng.gamma(0.5, 0.4, size=len(pieces)).astype("float32")
        advantage = np.float32(0.0 if prompt == 0 else (1.2 if correct else -0.6))
        sequences.append(
            {"prompt": prompt, "group": prompt, "length": len(pieces), "reward": np.float32(correct),
             "correct": correct, "advantage": advantage, "temperature": np.float32(1), "finished": True,
             "prompt_text": f"2+2*{prompt}-1+4=" + "".join(reversed(attack)), "text": "".join(pieces), "valid": True}
        )  # fmt: skip
        other = np.array((attack or PIECES)[::-1])[np.arange(len(pieces)) % len(attack or PIECES)]
        tokens.append(
            pd.DataFrame({"sequence": index, "position": range(len(pieces)), "token": 5, "piece": pieces,
                          "rollout_logp": logp, "old_logp": logp, "entropy": entropy, "advantage": advantage,
                          "top1_token": 5, "top1_piece": pieces, "top1_logp": logp,
                          "top2_token": 6, "top2_piece": other, "top2_logp": np.log1p(-np.exp(logp) + 1e-7)})
        )  # fmt: skip
    return pd.DataFrame(sequences), pd.concat(tokens, ignore_index=True)


def evals(step: int, steps: int, rng, prompts: int = 24, samples: int = 16) -> pd.DataFrame:
    """One row per evaluation sample of the set `reduce`."""
    skill = np.repeat(rng.beta(0.8, 3.0 - 1.8 * step / steps, size=prompts), samples)
    correct = rng.random(prompts * samples) < skill
    return pd.DataFrame(
        {"step": step, "set": "reduce", "prompt": np.repeat(np.arange(prompts), samples),
         "sample": np.tile(np.arange(samples), prompts), "prompt_text": "1+1=", "text": "2#", "correct": correct,
         "reward": correct.astype("float32"), "length": 2, "logp": np.float32(-0.5), "entropy": np.float32(0.3),
         "finished": True}
    )  # fmt: skip
