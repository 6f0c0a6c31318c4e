"""The four accuracies of instruction following, counted by hand."""

import pandas as pd
import pytest

from workbench.metrics.evaluation import evaluation_table
from workbench.metrics.instructions import instruction_table

ROWS = [  # prompt, instructions, followed, followed_loose
    (0, 2, 1, 2),
    (0, 2, 2, 2),
    (1, 1, 1, 1),
    (1, 1, 0, 1),
    (2, 3, 0, 1),
    (2, 3, 3, 3),
]


def evals():
    frame = pd.DataFrame(ROWS, columns=["prompt", "instructions", "followed", "followed_loose"])
    correct = frame["followed"] == frame["instructions"]
    return frame.assign(step=0, set="instructions/ifeval", correct=correct, answer="", text="a b c d e f")


def test_prompts_and_instructions_are_counted():
    table = instruction_table(evals()).set_index("measure")
    expected = {
        "prompt_strict": 3 / 6,
        "prompt_loose": 5 / 6,
        "instruction_strict": 7 / 12,
        "instruction_loose": 10 / 12,
    }
    assert table["value"].to_dict() == pytest.approx(expected)
    assert ((table["low"] <= table["value"]) & (table["value"] <= table["high"])).all()
    assert (table["low"] < table["high"]).sum() == 3  # every prompt has one strictly right response of two


def test_other_sets_have_none_of_them():
    other = evals().drop(columns=["instructions", "followed", "followed_loose"]).assign(set="reduce")
    both = evaluation_table(pd.concat([evals(), other], ignore_index=True))
    of_set = both.groupby("set")["measure"].apply(set)
    assert {"prompt_strict", "instruction_loose"} <= of_set["instructions/ifeval"]
    assert not {"prompt_strict", "instruction_loose"} & of_set["reduce"]
    strict = both.query("measure == 'prompt_strict'")["value"].item()
    assert strict == both.query("set == 'instructions/ifeval' and measure == 'avg'")["value"].item()
