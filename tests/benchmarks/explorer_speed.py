"""How quick the explorer is: the kernel's part of every wait, without the browser's; prints a table.

    python -m tests.benchmarks.explorer_speed

60 runs × 1,000 steps with rows as wide as real ones; a step of 131,072 tokens; a step of 1,000,000 tokens.
"""

import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import psutil

from tests.synthetic import metrics_row, write_run
from workbench.store import open_run

RUNS, STEPS = 60, 1000


def many_runs(root: Path) -> None:
    """60 runs of 1,000 steps, each row as wide as a real one."""
    rng = np.random.default_rng(0)
    for number in range(RUNS):
        folder = write_run(root / f"speed-{number:08x}", steps=8, seed=number)
        config = (folder / "config.yaml").read_text().replace("seed: 0", f"seed: {number}")
        (folder / "config.yaml").write_text(config)
        extra = {f"measure/{i}": 0.123456 for i in range(140)}
        rows = pd.DataFrame([metrics_row(step, STEPS, rng) | extra for step in range(1, STEPS + 1)])
        rows.to_json(folder / "metrics.jsonl", orient="records", lines=True)


def large_step(folder: Path, tokens: int, length: int) -> None:
    """A run of one kept step of this many tokens, every column the lab reads recorded."""
    rng, responses = np.random.default_rng(0), tokens // length
    write_run(folder, steps=8)
    for path in (folder / "rollouts").iterdir():
        path.unlink()
    group = np.arange(responses) // 8
    advantage = rng.choice([-0.6, 1.2], responses).astype("f4")
    sequences = pd.DataFrame(
        {"prompt": group, "group": group, "sample": np.arange(responses) % 8, "length": length,
         "reward": (advantage > 0).astype("f4"), "correct": advantage > 0, "advantage": advantage,
         "temperature": np.float32(1), "finished": True,
         "prompt_text": [f"prompt {g}" for g in group], "text": "x" * length}
    )  # fmt: skip
    count = responses * length
    logp = -rng.gamma(0.5, 0.6, count).astype("f4")
    entropy = rng.gamma(0.6, 0.6, count).astype("f4")
    moved = (logp + 0.1 * rng.standard_normal(count)).astype("f4")
    table = pd.DataFrame(
        {"sequence": np.repeat(np.arange(responses), length), "position": np.tile(np.arange(length), responses),
         "token": rng.integers(0, 5000, count), "piece": rng.choice([f" w{i}" for i in range(5000)], count),
         "rollout_logp": logp, "old_logp": logp, "logp": moved, "ratio": np.exp(moved - logp), "entropy": entropy,
         "current_entropy": entropy, "entropy_after": entropy * np.float32(0.99), "logp_after": moved,
         "expected_discriminator": entropy * np.float32(0.1), "advantage": np.repeat(advantage, length),
         "clip_low": np.float32(0.2), "clip_high": np.float32(0.2), "weight": np.float32(1)}
    )  # fmt: skip
    sequences.to_parquet(folder / "rollouts" / "000008.sequences.parquet")
    table.to_parquet(folder / "rollouts" / "000008.tokens.parquet")


def timed(action, repeats: int = 5) -> float:
    """Median seconds of `action()`."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        action()
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def kernel_times(root: Path) -> list[tuple[str, float]]:
    """(action, seconds) without a browser."""
    from workbench.widgets.explorer import Explorer
    from workbench.widgets.token_view import TokenView

    Explorer(root / "warm")  # imports
    rows = [(f"open {RUNS} runs × {STEPS} steps", timed(lambda: Explorer(root / "many"), 3))]
    explorer = Explorer(root / "lab")
    rows.append(("what-if: read a step of 131,072 tokens", timed(lambda: choose(explorer, "What-if"), 1)))
    view = explorer._views["What-if"]
    values = iter(np.linspace(0.3, 0.0, 50))
    move = timed(lambda: setattr(view.clip_high, "value", next(values)))
    rows.append(("what-if: one move of a slider, 131,072 tokens", move))
    before = psutil.Process().memory_info().rss
    million = open_run(root / "million" / "million-0000abcd")
    held = []
    rows.append(("open a step of 1,000,000 tokens", timed(lambda: held.append(TokenView(million)), 1)))
    offsets = iter(range(4, 4000, 4))
    rows.append(("next page of it", timed(lambda: setattr(held[0], "request", {"offset": next(offsets)}))))
    rows.append(("search in it", timed(lambda: setattr(held[0], "request", {"search": f"prompt {next(offsets)}"}))))
    rows.append(("memory it takes, MiB", (psutil.Process().memory_info().rss - before) / 2**20))
    return rows


def choose(explorer, title: str) -> None:
    explorer.view_choice.value = title


def main() -> None:
    root = Path(tempfile.mkdtemp(prefix="explorer-speed-"))
    try:
        many_runs(root / "many")
        write_run(root / "warm" / "warm-0000abcd")
        large_step(root / "lab" / "lab-0000abcd", 131_072, 256)
        large_step(root / "million" / "million-0000abcd", 1_000_000, 500)
        rows = kernel_times(root)
    finally:
        shutil.rmtree(root)
    print(f"the kernel's part; {psutil.cpu_count()} cores, load {psutil.getloadavg()[0]:.1f}")
    for action, value in rows:
        print(f"{action:52} {value:9.1f}" if "MiB" in action else f"{action:52} {1000 * value:9.0f} ms")


if __name__ == "__main__":
    main()
