"""The explorer from the kernel's side: run tables, every view on made-up and on imported runs, the monitor."""

import json
import os
import time

import numpy as np
import pandas as pd
import pytest

from tests.synthetic import HOSTILE, write_run, write_status
from workbench.plots import plain
from workbench.store import curve_table, last_row, open_run
from workbench.widgets import run_data, token_data
from workbench.widgets.data_table import DataTable
from workbench.widgets.explorer import Explorer, PlainExplorer
from workbench.widgets.monitor import Heartbeat, Monitor
from workbench.widgets.pairs import PairedRuns, differences
from workbench.widgets.views import VIEWS


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Two runs of made-up numbers, one of them hostile, and one as imported: rewards, entropy and completions alone."""
    root = tmp_path_factory.mktemp("runs")
    write_run(root / "first-0000abcd")
    write_run(root / "second-0000abce", seed=1, hostile=True)
    imported = write_run(root / "trl-0000abcf", seed=2)
    for path in (imported / "rollouts").glob("*.tokens.parquet"):
        path.unlink()
    for path in (imported / "rollouts").glob("*.sequences.parquet"):
        pd.read_parquet(path)[["prompt_text", "text", "reward"]].to_parquet(path)
    rows = [json.loads(line) for line in (imported / "metrics.jsonl").read_text().splitlines()]
    kept = ("step", "entropy/mean", "reward/mean")
    (imported / "metrics.jsonl").write_text("".join(json.dumps({k: row[k] for k in kept}) + "\n" for row in rows))
    return root


@pytest.fixture(scope="module")
def explorer(root):
    return Explorer(root)


def test_runs_are_filtered_by_words_and_fields(root):
    table = run_data.run_table(run_data.resolve(root))
    ids = lambda query: [name.split("-")[0] for name in run_data.filter_runs(table, query)["id"]]  # noqa: E731
    assert ids("") == ids("methods=grpo seed=0") == ["first", "second", "trl"]
    assert ids("trl") == ["trl"] and ids("id!=trl-0000abcf id~s") == ["first", "second"]
    assert ids("rollout.samples>4") == [] and ids("rollout.samples>=4") == ["first", "second", "trl"]
    with pytest.raises(ValueError, match="no field 'colour'"):
        ids("colour=red")


def test_curves_hold_what_the_files_do_even_torn(root, tmp_path):
    run = open_run(write_run(tmp_path / "torn-0000abcd"))
    pd.testing.assert_series_equal(curve_table(run, ["reward/mean"])["reward/mean"], run.metrics["reward/mean"])
    with (run.path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 41, "reward/me')
    assert len(curve_table(run, ["reward/mean", "nothing"])) == 40
    assert curve_table(run, ["nothing"])["nothing"].isna().all()
    assert last_row(run) == json.loads((run.path / "metrics.jsonl").read_text().splitlines()[39])
    (run.path / "metrics.jsonl").write_text(json.dumps({"step": 1, "note": "x" * 300_000}) + "\n")
    assert last_row(run)["step"] == 1


def test_config_diff_names_the_fields_that_differ():
    table = pd.DataFrame({"id": ["a", "b"], "methods": ["grpo", "grpo"], "seed": [0, 1], "rollout.samples": [8, 8]})
    assert run_data.config_diff(table, ["a", "b"]).to_dict("records") == [{"field": "seed", "a": 0, "b": 1}]


@pytest.mark.parametrize("view", [view.title for view in VIEWS])
@pytest.mark.parametrize("name", ["first-0000abcd", "second-0000abce", "trl-0000abcf"])
def test_every_view_draws_or_says_what_is_missing(explorer, view, name):
    explorer.view_choice.value = view
    explorer.run_choice.value = name
    words = explorer._shown.note.value
    assert explorer._shown.title == view and len(words) > 60
    if name.startswith("trl") and view in ("Ledger", "What-if", "Quadrants"):
        assert "Not recorded" in words
    assert "<img" not in words and "</script" not in words


def test_a_click_on_a_curve_goes_to_its_run_and_step(explorer):
    explorer.view_choice.value = "Text"
    explorer.bands.value = False
    trace = next(t for t in explorer.curves.plot.figure.data if t.meta == "second-0000abce" and t.line.width > 2)
    explorer.curves.plot._told(
        None, {"click": {"curve": explorer.curves.plot.figure.data.index(trace), "place": 30}}, []
    )
    assert explorer.run.id == "second-0000abce" and explorer.step == 32
    assert explorer._token_view.header["run"] == "second-0000abce"
    (line,) = explorer.curves.plot.shapes
    assert line["x0"] == 32


def test_a_brush_marks_tokens_and_counts_strings(explorer):
    explorer.run_choice.value = "first-0000abcd"
    explorer.view_choice.value = "Quadrants"
    explorer.detail.plot._told(None, {"brush": {"x": [-20, 1], "y": [0.5, 9]}}, [])
    view, tokens = explorer._token_view, explorer.tables().tokens
    assert view.frame["marked"] and "tokens" in explorer._shown.note.value
    assert explorer.detail.numbers["count"].sum() == (tokens["advantage"] > 0.5).sum()
    explorer.view_choice.value = "Text"
    assert not explorer._token_view.frame["marked"]


def test_tables_hold_text_and_say_when_they_are_cut():
    table = DataTable(pd.DataFrame({"a": [HOSTILE, float("nan"), 1.5], "b": [True, None, 3]}))
    assert table.rows == [[HOSTILE, "yes"], [None, None], [1.5, 3]]
    table.show(pd.DataFrame({"n": range(2000)}), "numbers.")
    assert len(table.rows) == 1000 and table.caption == "numbers. First 1,000 of 2,000 rows."


def test_labels_of_figures_are_never_markup():
    assert plain(HOSTILE) == '&lt;/script&gt;&lt;img src=x onerror="document.t…'
    assert plain("\x1b[31m\u202ered\n") == "␛[31m⟨202E⟩red⏎"


def test_two_runs_are_compared_after_the_same_text():
    tokens = pd.DataFrame(
        {"run": [0, 0, 0, 1, 1], "sequence": [0, 0, 0, 1, 1], "position": [0, 1, 2, 0, 1], "token": [5, 6, 7, 5, 9],
         "entropy": [0.1, 0.2, 0.3, 0.5, 0.9]}
    )  # fmt: skip
    found = differences(tokens, [0, 0])
    assert found[[0, 1, 3, 4]] == pytest.approx([-0.4, -0.7, 0.4, 0.7]) and pd.isna(found[2])


def test_pairs_keep_steps_with_prompts_in_common(root):
    first, second = (open_run(root / name) for name in ("first-0000abcd", "trl-0000abcf"))
    pair = PairedRuns(first, first)
    assert pair.rollout_steps == first.rollout_steps
    assert set(pair.rollouts(8).sequences["name"]) == {first.id}
    third = open_run(write_run(root / "third-0000abd0", seed=3))
    pair = PairedRuns(first, third)
    both = pair.rollouts(8)
    assert list(both.sequences["name"][:4]) == [first.id, third.id] * 2
    texts = both.tokens.groupby("sequence")["piece"].agg("".join)
    assert texts.tolist() == both.sequences["text"].tolist()
    assert PairedRuns(first, second).rollout_steps == first.rollout_steps  # the same made-up prompts


def test_one_of_two_runs_may_have_no_alternatives(tmp_path):
    runs = [open_run(write_run(tmp_path / f"run-{seed}-0000abcd", seed=seed)) for seed in (0, 1)]
    for path in (runs[1].path / "rollouts").glob("*.tokens.parquet"):
        tokens = pd.read_parquet(path)
        tokens.drop(columns=[name for name in tokens if name.startswith("top")]).to_parquet(path)
    frame = token_data.frame(PairedRuns(*runs), 8)
    with_them = np.isfinite(frame["columns"]["top1_logp"])
    assert 0 < with_them.sum() < len(with_them) and frame["columns"]["top1"].max() < len(frame["pieces"])


def test_batch_runs_get_plain_figures(root):
    plainly = PlainExplorer(root)
    assert len(plainly.figure.data) >= 3 and plainly.tokens is not None


def test_the_monitor_tells_running_stalled_and_dead_apart(tmp_path):
    folder = write_run(tmp_path / "watched-0000abcd", steps=16)
    write_status(folder, "running", step=16, steps=99)
    monitor = Monitor(folder, poll=0.05)
    assert "running, step 16 of 99" in monitor.state.value and monitor._tokens.step == 16
    long_ago = time.time() - 16
    os.utime(folder / "status.json", (long_ago, long_ago))
    monitor._pulse = Heartbeat()
    assert monitor.look().startswith("stalled? step 16 of 99; last sign of life 16")
    status = json.loads((folder / "status.json").read_text()) | {"pid": 2**22 - 1}
    (folder / "status.json").write_text(json.dumps(status))
    assert monitor.look().startswith("lost at step 16")
    for _ in range(100):
        if monitor._stopped.is_set():
            break
        time.sleep(0.05)
    assert monitor._stopped.is_set(), "it detaches from a run that has ended"


def test_a_clock_that_differs_between_machines_is_no_stall():
    pulse = Heartbeat()
    ahead = time.time() + 3600
    assert pulse.silence(ahead) < 1 and pulse.silence(ahead + 5) < 1
