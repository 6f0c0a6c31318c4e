"""What the token view holds: bounded, honest about what it leaves out, and never markup."""

import json
import re
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from tests.synthetic import GROUP, HOSTILE, PROMPTS, write_run
from workbench.store import open_run
from workbench.widgets import StaticTokenView, token_data, token_view


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return open_run(write_run(tmp_path_factory.mktemp("runs") / "synthetic-0000abcd"))


def test_frame_shows_the_first_groups_and_responses_in_stored_order(run):
    frame = token_data.frame(run, 8, groups=3, rollouts=5)
    stored = run.rollouts(8)
    assert frame["total"] == PROMPTS * GROUP and frame["total_groups"] == PROMPTS
    assert [len(group["rollouts"]) for group in frame["groups"]] == [5, 5, 5]
    expected = [f"{index // 5},{stored.sequences['text'][8 * (index // 5) + index % 5]}" for index in range(15)]
    shown = [f"{g},{rollout['text']}" for g, group in enumerate(frame["groups"]) for rollout in group["rollouts"]]
    assert shown == expected


def test_frame_numbers_are_the_stored_ones(run):
    frame = token_data.frame(run, 16)
    rollout = frame["groups"][1]["rollouts"][2]
    stored = run.rollouts(16).tokens.query(f"sequence == {GROUP + 2}").sort_values("position")
    mine = {name: values[rollout["first"] :][: rollout["count"]] for name, values in frame["columns"].items()}
    np.testing.assert_array_equal(mine["entropy"], stored["entropy"])
    np.testing.assert_array_equal(mine["old_logp"], stored["old_logp"])
    assert "".join(frame["pieces"][i] for i in mine["piece"]) == rollout["text"]
    assert not {"ref_logp", "change", "gap"} & set(mine)
    assert [frame["pieces"][i] for i in mine["top2"]] == stored["top2_piece"].tolist()
    np.testing.assert_array_equal(mine["top2_logp"], stored["top2_logp"])


def test_groups_without_reward_variance_are_flagged(run):
    sequences = run.rollouts(40).sequences
    flags = [group["flat"] for group in token_data.frame(run, 40)["groups"]]
    assert flags == [sequences[sequences["group"] == g]["reward"].std() == 0 for g in range(4)]
    assert flags[0]


def test_not_recorded_stays_distinct_from_zero():
    assert token_data._round(float("nan")) is None and token_data._round(None) is None
    assert token_data._round(0.0) == 0


def test_one_scale_serves_all_steps(run):
    first, last = (run.rollouts(step).tokens["entropy"] for step in (8, 40))
    ceiling = token_data.entropy_ceiling(run)
    assert ceiling * 4 == round(ceiling * 4)
    share_above = np.mean(np.concatenate([first, last]) > ceiling)
    assert share_above <= 0.011 and token_data.header(run)["scales"]["entropy"] == ceiling


def test_pages_search_and_pins_choose_groups(run):
    tables = token_data.load(run, 16)

    def prompts(**request):
        page = token_data.frame(tables, 16, groups=3, request=token_data.Request(**request))
        return [group["prompt"] for group in page["groups"]], page["matching_groups"]

    assert prompts(offset=6) == (["2+2*6-1+4=", "2+2*7-1+4="], PROMPTS)
    assert prompts(search="2*5-") == (["2+2*5-1+4="], 1)
    assert prompts(search=".*") == ([], 0)
    key = tables.keys[3 * GROUP]
    assert prompts(pinned=(key,)) == (["2+2*3-1+4="], 1)
    assert token_data.steps_by_prompt(run)[key] == [8, 16, 24, 32, 40]
    rewards = [
        g["mean"] for g in token_data.frame(tables, 16, 8, request=token_data.Request(sort="lowest reward"))["groups"]
    ]
    assert rewards == sorted(rewards)


def test_marked_tokens_bring_their_responses_first(run):
    tables = token_data.load(run, 16)
    marks = np.zeros(len(tables.tokens), dtype=bool)
    marks[tables.starts[4 * GROUP + 5] + 2] = True
    frame = token_data.frame(tables, 16, request=token_data.Request(marked=True), marks=marks)
    (group,) = frame["groups"]
    (rollout,) = group["rollouts"]
    assert rollout["row"] == 4 * GROUP + 5 and frame["columns"]["mark"].nonzero()[0].tolist() == [2]


def test_requests_of_a_front_end_are_read_with_care():
    read = token_data.Request.read
    assert read({"sort": "drop table", "offset": -3, "limit": None, "pinned": [1]}) == token_data.Request(pinned=("1",))


def test_text_alone_is_enough():
    texts = pd.Series(["x" * 30_000, "bad \ud800"], dtype=object)
    sequences = pd.DataFrame({"prompt_text": ["p", "p"], "text": texts, "reward": [1.0, 0.0]})
    tables = token_data.StepTables(3, sequences, pd.DataFrame({"sequence": [], "position": []}))
    frame = token_data.frame(tables, 3)
    first, second = frame["groups"][0]["rollouts"]
    assert (first["count"], first["characters"], len(first["text"])) == (0, 30_000, token_data.TEXT + 1)
    assert second["text"] == "bad \ufffd" and second["correct"] is None
    assert set(frame["columns"]) == {"piece"}


def test_hostile_text_cannot_end_the_data_block(tmp_path):
    run = open_run(write_run(tmp_path / "hostile", steps=8, hostile=True))
    html = StaticTokenView(run)._repr_html_()
    block = re.search(r'<script type="application/json">(.*?)</script>', html, re.DOTALL)[1]
    assert "<" not in block and "<img" not in html
    rollout = json.loads(block)["frames"][0]["groups"][0]["rollouts"][0]
    assert rollout["text"].startswith(HOSTILE)


def test_outside_a_live_front_end_the_view_is_static(run):
    view = token_view(run)
    assert isinstance(view, StaticTokenView) and "5 kept steps" in repr(view)
    assert len(view._repr_html_()) < 400_000


def test_a_run_without_rollouts_is_refused_with_the_remedy():
    with pytest.raises(ValueError, match="kept no rollouts"):
        token_view(SimpleNamespace(id="empty", rollout_steps=[]))
