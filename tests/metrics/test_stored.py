"""The metrics of a stored step are those the trainer logged."""

import pandas as pd
import pytest

import workbench as wb
from tests.synthetic import write_run
from workbench.metrics.stored import summarise
from workbench.metrics.token_classes import TokenClasses
from workbench.store import Run
from workbench.training import train_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    overrides = {"training.steps": 2, "evaluation.sets": [], "methods": ["grpo", "random_reward"]}
    folder = train_run(wb.preset("smoke", overrides), tmp_path_factory.mktemp("runs"), log=lambda line: None)
    return Run(folder)


def test_a_stored_step_gives_the_metrics_that_were_logged(run):
    logged = run.metrics.set_index("step").loc[2]
    stored = run.rollouts(2)
    again = summarise(stored.sequences, stored.tokens)
    assert len(again) > 80
    for name, value in again.items():
        assert value == pytest.approx(logged[name], rel=1e-9, nan_ok=True), name


def test_own_token_classes_replace_the_default(run):
    stored = run.rollouts(2)
    own = summarise(stored.sequences, stored.tokens, TokenClasses(formal="[#!?]"))
    ends = stored.tokens["piece"].isin(list("#!?")).mean()
    assert own["token_class/formal_fraction"] == pytest.approx(ends, rel=1e-6)


def test_tables_of_another_trainer_give_what_they_allow(tmp_path):
    stored = Run(write_run(tmp_path / "other-00000000")).rollouts(8)
    values = summarise(stored.sequences, stored.tokens)
    assert values["entropy/mean"] == pytest.approx(stored.tokens["entropy"].mean(), rel=1e-6)
    assert not any(name.startswith(("change/", "clip/")) for name in values)


def test_tokens_out_of_order_are_refused(run):
    stored = run.rollouts(2)
    shuffled = pd.concat([stored.tokens.iloc[40:], stored.tokens.iloc[:40]])
    with pytest.raises(ValueError, match="order"):
        summarise(stored.sequences, shuffled)
