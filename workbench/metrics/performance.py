"""Performance from repeated samples: avg@k, pass@k, maj@k, per-prompt accuracy, with intervals.

Every function takes evaluation samples as `Run.evals` gives them: one row per sample with `step, set, prompt, sample,
correct` and, for maj@k, `answer`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from workbench.metrics.majority import MAX_SAMPLES, maj_at_ks
from workbench.metrics.statistics import bootstrap_interval, bootstrap_over_seeds

KEYS = ["step", "set"]


def pass_at_k(correct: np.ndarray, k: int) -> np.ndarray:
    """Unbiased pass@k per prompt, 1 − C(n − c, k) / C(n, k) with c of n samples correct (arXiv 2107.03374, eq. 1).

    correct: bool [prompts, n]. Returns float64 [prompts]. Raises `ValueError` unless 1 ≤ k ≤ n.
    """
    n = np.full(len(correct), correct.shape[1])
    return pass_at_k_of_counts(n, correct.sum(1), k)


def pass_at_k_of_counts(n: np.ndarray, c: np.ndarray, k: int) -> np.ndarray:
    """pass@k (see `pass_at_k`) of prompts with n [P] samples, c [P] of them correct. Raises unless 1 ≤ k ≤ min n."""
    if not 1 <= k <= n.min():
        raise ValueError(f"pass@k needs 1 ≤ k ≤ {n.min()} samples per prompt, got k = {k}")
    drawn = np.arange(k)
    # Π (n − c − i)/(n − i): the chance that k draws without replacement are all wrong; a factor 0 ends it exactly.
    return 1.0 - np.prod(np.clip((n - c)[:, None] - drawn, 0, None) / (n[:, None] - drawn), axis=1)


def powers_of_two(n: int) -> list[int]:
    """1, 2, 4, … up to n."""
    return [2**i for i in range(n.bit_length()) if 2**i <= n]


def has_answers(samples: pd.DataFrame) -> bool:
    """Whether the samples of one step and set have final answers to compare: some tasks (code) judge without one."""
    return "answer" in samples and bool(samples["answer"].notna().all() and (samples["answer"] != "").any())


def prompt_accuracy(evals: pd.DataFrame) -> pd.DataFrame:
    """Share of correct samples of every prompt: columns step, set, prompt, samples, correct (count), accuracy."""
    counts = evals.groupby([*KEYS, "prompt"], sort=True)["correct"].agg(["size", "sum"]).reset_index()
    counts.columns = [*KEYS, "prompt", "samples", "correct"]
    counts["correct"] = counts["correct"].astype("int64")
    return counts.assign(accuracy=counts["correct"] / counts["samples"])


def pass_at_k_table(evals: pd.DataFrame, ks: list[int] | None = None) -> pd.DataFrame:
    """pass@k of every evaluated step and set: columns step, set, k, value, low, high (95 %, bootstrap over prompts).

    ks defaults to the powers of two up to the number of samples (of the prompt that has fewest).
    """
    rows = []
    for key, prompts in prompt_accuracy(evals).groupby(KEYS, sort=True):
        n, c = prompts["samples"].to_numpy(), prompts["correct"].to_numpy()
        for k in ks or powers_of_two(int(n.min())):
            values = pass_at_k_of_counts(n, c, k)
            rows.append((*key, k, float(values.mean()), *bootstrap_interval(values)))
    return pd.DataFrame(rows, columns=[*KEYS, "k", "value", "low", "high"])


def performance_by_prompt(evals: pd.DataFrame, ks: list[int] | None = None) -> pd.DataFrame:
    """avg@k, pass@k and maj@k of every prompt: columns step, set, prompt, measure (avg, pass, maj), k, value.

    avg@k is the expected accuracy of k samples, which is that of all n whatever k (unbiased), so it is given once, with
    k = n. pass@k: see `pass_at_k`. maj@k: expected accuracy of the majority answer of k samples, see `maj_at_ks`; left
    out where a set has no answers or a prompt more than `MAX_SAMPLES` samples. ks defaults to the powers of two up to
    the number of samples, and that number.
    """
    parts = []
    for (step, name), samples in evals.groupby(KEYS, sort=True):
        counts = samples.groupby("prompt", sort=True)["correct"].agg(["size", "sum"])
        n, c = counts["size"].to_numpy(), counts["sum"].to_numpy(dtype=int)
        wanted = ks or sorted({*powers_of_two(int(n.min())), int(n.min())})
        columns = {("avg", int(n.max())): c / n} | {("pass", k): pass_at_k_of_counts(n, c, k) for k in wanted}
        if has_answers(samples) and n.max() <= MAX_SAMPLES:
            votes = [
                maj_at_ks(prompt["answer"].tolist(), prompt["correct"].to_numpy(dtype=float), wanted)
                for _, prompt in samples.groupby("prompt", sort=True)
            ]
            columns |= {("maj", k): values for k, values in zip(wanted, np.array(votes).T, strict=True)}
        for (measure, k), values in columns.items():
            row = {"step": step, "set": name, "prompt": counts.index, "measure": measure, "k": k, "value": values}
            parts.append(pd.DataFrame(row))
    return pd.concat(parts, ignore_index=True)


def performance_table(evals: pd.DataFrame, ks: list[int] | None = None) -> pd.DataFrame:
    """avg@k, pass@k and maj@k over prompts (see `performance_by_prompt`): columns step, set, measure, k, value, low,
    high; 95 % intervals by bootstrap over prompts."""
    by_prompt = performance_by_prompt(evals, ks)
    return mean_table(by_prompt, [*KEYS, "measure", "k"])


def mean_table(by_prompt: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Mean of `value` over the prompts of each group of `keys`, with `low` and `high` (95 %, bootstrap over prompts).

    Prompts whose value is NaN are left out.
    """
    rows = [
        (*key, float(values.mean()), *bootstrap_interval(values))
        for key, values in by_prompt.groupby(keys, sort=False)["value"]
    ]
    return pd.DataFrame(rows, columns=[*keys, "value", "low", "high"])


def table_over_seeds(
    evals: pd.DataFrame,
    by_prompt: Callable[[pd.DataFrame], pd.DataFrame] = performance_by_prompt,
    seed: str = "seed",
    prompts: bool = True,
) -> pd.DataFrame:
    """Any per-prompt measure over several seeds: columns step, set, measure, k (where there is one), seeds, value, low,
    high; 95 % intervals by `bootstrap_over_seeds`.

    evals: samples of all seeds, told apart by the column `seed`; by_prompt: e.g. `performance_by_prompt` or
    `diversity_by_prompt`. Every seed must have been evaluated on the same prompts; raises `ValueError` otherwise, and
    for a single seed. Measures that are NaN for a prompt leave that prompt out for all seeds.
    """
    measured = pd.concat(
        [by_prompt(part.drop(columns=seed)).assign(seed=name) for name, part in evals.groupby(seed, sort=True)]
    )
    keys = [name for name in (*KEYS, "measure", "k") if name in measured]
    rows = []
    for key, part in measured.groupby(keys, sort=False):
        grid = part.pivot(index="seed", columns="prompt", values="value")
        if len(part) != grid.size:
            raise ValueError(f"the seeds were evaluated on different prompts at {dict(zip(keys, key, strict=True))}")
        values = grid.to_numpy(dtype=float)
        values = values[:, ~np.isnan(values).any(0)]
        interval = bootstrap_over_seeds(values, prompts=prompts) if values.size else (np.nan, np.nan)
        rows.append((*key, len(grid), float(values.mean()) if values.size else np.nan, *interval))
    return pd.DataFrame(rows, columns=[*keys, "seeds", "value", "low", "high"])
