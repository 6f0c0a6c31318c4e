"""Prompt entropy over training and against accuracy, on frames small enough to check by hand."""

import numpy as np
import pandas as pd
import pytest

from workbench.metrics.prompt_entropy import (
    prompt_entropy_and_accuracy,
    prompt_entropy_by_prompt,
    prompt_entropy_table,
)

ENTROPY = {0: [2.0, 1.0, np.nan], 20: [1.0, 0.8, np.nan]}


def evals():
    rng = np.random.default_rng(0)
    rows = [
        {"step": step, "set": "reduce", "prompt": prompt, "sample": sample, "prompt_entropy": entropy,
         "correct": prompt == 0, "text": f"{rng.integers(9)} {sample} 4 5 6", "answer": str(sample), "logp": -2.0,
         "length": 5}
        for step, values in ENTROPY.items() for prompt, entropy in enumerate(values) for sample in range(4)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_each_prompt_is_compared_with_itself_before_training():
    rows = prompt_entropy_by_prompt(evals())
    assert len(rows) == 6
    assert rows.query("step == 20")["ratio"].tolist() == pytest.approx([0.5, 0.8, np.nan], nan_ok=True)


def test_the_ratio_is_that_of_the_means_and_starts_at_one():
    table = prompt_entropy_table(evals()).set_index("step")
    assert table["value"].tolist() == pytest.approx([1.5, 0.9])
    assert table["ratio"].tolist() == pytest.approx([1.0, 0.6])
    assert 0.5 <= table.loc[20, "ratio_low"] <= 0.6 <= table.loc[20, "ratio_high"] <= 0.8


def test_the_correlation_with_accuracy_is_over_prompts():
    table = prompt_entropy_and_accuracy(evals())
    assert table["spearman"].tolist() == pytest.approx([1.0, 1.0])
