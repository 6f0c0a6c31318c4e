"""The live token view from the kernel's side."""

import pytest

from tests.synthetic import write_run
from workbench.store import open_run
from workbench.widgets import TokenView, token_data


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return open_run(write_run(tmp_path_factory.mktemp("runs") / "synthetic-0000abcd"))


def test_steps_load_when_selected_and_the_nearest_kept_one_is_taken(run):
    view = TokenView(run, groups=1, rollouts=2)
    assert view.header["steps"] == [8, 16, 24, 32, 40] and view.frame["step"] == 8
    view.step = 31
    expected = token_data.frame(run, 32, 1, 2)
    assert view.frame["groups"] == expected["groups"]
    assert view.frame["columns"]["entropy"] == expected["columns"]["entropy"].tobytes()
    view.step = 1000
    assert view.frame["step"] == 40 == view.step
    view.request = {"search": "2*5-", "step": 16}
    assert view.step == 16 and view.frame["matching_groups"] == 1


def test_marks_last_for_their_step(run):
    view = TokenView(run)
    marks = [True] + [False] * (len(view.tables.tokens) - 1)
    view.mark(marks, "the first token")
    assert view.frame["marked"] and view.header["marks"] == "the first token" and view.request["marked"]
    view.step = 40
    assert not view.frame["marked"]


def test_only_selected_steps_are_read(run):
    read, scaled = [], []

    class Counting:
        id, path, rollout_steps = run.id, run.path, run.rollout_steps

        def rollouts(self, step):
            read.append(step)
            return run.rollouts(step)

        def token_columns(self, step, names):
            scaled.append(step)
            return run.token_columns(step, names)

    view = TokenView(Counting())
    view.step = 24
    assert read == [8, 24] and scaled == [8, 40]  # first and last fix the colour scale
