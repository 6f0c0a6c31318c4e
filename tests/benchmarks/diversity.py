"""Every measure of an evaluation of published size: 64 samples of 30 prompts, 1,000 tokens each, synthetic text.

    python -m tests.benchmarks.diversity [PROMPTS] [SAMPLES] [TOKENS]

Printed are the seconds of every group of measures, their sum, and what they say.
"""

import sys
import time

import numpy as np
import pandas as pd

from workbench.metrics import (
    calibration_table,
    diversity_table,
    performance_table,
    prompt_entropy_and_accuracy,
    prompt_entropy_table,
    reliability_table,
)

VOCABULARY = 5000
REUSE = 0.7
"""Share of tokens copied from a text common to the prompt's responses, so that n-grams of every order repeat."""


def synthetic(prompts: int, samples: int, tokens: int, seed: int = 0) -> pd.DataFrame:
    """Samples as an evaluation stores them: texts of `tokens` words with Zipf's frequencies, answers, log-probs."""
    rng = np.random.default_rng(seed)
    vocabulary = np.array([f"w{i}" for i in range(VOCABULARY)])
    shares = 1 / np.arange(1, VOCABULARY + 1)
    cumulative = np.cumsum(shares / shares.sum())
    rows = []
    for prompt in range(prompts):
        common, skill = cumulative.searchsorted(rng.random(tokens)), rng.beta(1, 2)
        for sample in range(samples):
            own = cumulative.searchsorted(rng.random(tokens))
            text = " ".join(vocabulary[np.where(rng.random(tokens) < REUSE, common, own)])
            correct = rng.random() < skill
            answer = "0" if correct else str(rng.geometric(0.2))
            derivation = str(rng.integers(4)) if correct else ""
            logp = -tokens * rng.gamma(2, 0.2 - 0.1 * correct)
            rows.append((prompt, sample, text, correct, answer, derivation, logp, tokens, skill))
    columns = ["prompt", "sample", "text", "correct", "answer", "derivation", "logp", "length", "prompt_entropy"]
    return pd.DataFrame(rows, columns=columns).assign(step=0, set="synthetic")


def main(prompts: int = 30, samples: int = 64, tokens: int = 1000) -> None:
    evals = synthetic(prompts, samples, tokens)
    print(
        f"{prompts} prompts × {samples} samples × {tokens} tokens, {evals['text'].str.len().sum() / 1e6:.1f} MB of text"
    )
    total = 0.0
    for measure in (
        diversity_table,
        calibration_table,
        reliability_table,
        performance_table,
        prompt_entropy_table,
        prompt_entropy_and_accuracy,
    ):
        start = time.perf_counter()
        table = measure(evals)
        seconds = time.perf_counter() - start
        total += seconds
        print(f"\n{measure.__name__}: {seconds:.2f} s")
        print(table.drop(columns=["step", "set"]).to_string(index=False, float_format="%.4f"))
    print(f"\ntotal: {total:.2f} s")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
