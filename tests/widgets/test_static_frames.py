"""A page's frames: within their bytes whatever the run, honest about what they leave out, numbers as stored."""

import base64
import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.widgets.static_frames import MISSING, STATIC_BYTES, UNIT, pack, static_frames
from workbench.widgets.token_data import MIN_TOKENS_PER_ROLLOUT

NUMBERS = ("entropy", "logp", "old_logp", "rollout_logp", "ratio", "weight", "top1_logp", "top2_logp", "top3_logp")


def long_run(steps, length):
    """A run with what a trainer records, without files: the budget must hold for what is too large to write."""
    rng = np.random.default_rng(0)
    sequences = pd.DataFrame(
        {
            "group": np.repeat(range(4), 8),
            "length": length,
            "reward": 0.0,
            "advantage": 0.0,
            "prompt_text": "p" * 300,
            "text": "word " * length,
        }
    )
    tokens = pd.DataFrame({"sequence": np.repeat(range(32), length), "position": np.tile(range(length), 32)})
    tokens = tokens.assign(**{name: -rng.gamma(0.5, 0.4, len(tokens)).astype("float32") for name in NUMBERS})
    names = ("piece", "top1_piece", "top2_piece", "top3_piece")
    tokens = tokens.assign(**{name: rng.choice([f"word{i}" for i in range(3000)], len(tokens)) for name in names})
    stored = SimpleNamespace(sequences=sequences, tokens=tokens)
    return SimpleNamespace(id="long", rollout_steps=list(range(1, steps + 1)), rollouts=lambda step: stored)


def unpacked(column):
    values = np.frombuffer(base64.b64decode(column["base64"]), dtype="<" + column["type"])
    return np.where(values == MISSING, np.nan, values / column["unit"]) if "unit" in column else values


@settings(max_examples=12, deadline=None)
@given(st.integers(1, 60), st.integers(1, 700))
def test_frames_keep_the_budget_and_the_ends(steps, length):
    frames = static_frames(long_run(steps, length))
    assert len(json.dumps(frames, separators=(",", ":"))) <= STATIC_BYTES + len(frames) + 1
    assert frames[0]["step"] == 1 and frames[-1]["step"] == steps
    cut = frames[0]["groups"][0]["rollouts"][0]
    assert cut["length"] == length and cut["count"] == min(length, frames[0]["limit"])
    assert cut["characters"] == 5 * length and len(cut["text"]) <= 4 * frames[0]["limit"] + 1
    assert {name: len(unpacked(column)) for name, column in frames[0]["columns"].items()} == dict.fromkeys(
        frames[0]["columns"], 32 * cut["count"]
    )


def test_steps_are_thinned_only_when_responses_are_at_their_shortest():
    few, many = static_frames(long_run(3, 400)), static_frames(long_run(60, 400))
    assert len(few) == 3 and few[0]["limit"] > MIN_TOKENS_PER_ROLLOUT
    assert 2 < len(many) < 60 and many[0]["limit"] == MIN_TOKENS_PER_ROLLOUT
    gaps = np.diff([frame["step"] for frame in many])
    assert gaps.max() - gaps.min() <= gaps.mean()


def test_the_ends_stay_whatever_they_take():
    assert [frame["step"] for frame in static_frames(long_run(9, 100), budget=10)] == [1, 9]


@given(st.lists(st.one_of(st.floats(-32.7, 32.7), st.sampled_from([np.nan, np.inf, -np.inf, 0.0])), max_size=30))
def test_numbers_are_kept_to_a_thousandth_and_missing_ones_missing(values):
    values = np.array(values, dtype=np.float32)
    column = pack(values)
    assert column["type"] == "i2"
    np.testing.assert_allclose(unpacked(column), np.where(np.isfinite(values), values, np.nan), atol=0.5001 / UNIT)


def test_large_numbers_are_kept_whole():
    values = np.array([-40.125, np.inf, 1e6], dtype=np.float32)
    np.testing.assert_array_equal(unpacked(pack(values)), [-40.125, np.nan, 1e6])


@pytest.mark.parametrize(("values", "kind"), [([0, 65_535], "u2"), ([65_536], "u4"), ([], "u2")])
def test_places_are_as_wide_as_they_must_be(values, kind):
    column = pack(np.array(values, dtype=np.uint32))
    assert column["type"] == kind and unpacked(column).tolist() == values
