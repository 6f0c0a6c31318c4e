"""Following a run that is being written."""

import json
import time

import numpy as np
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.synthetic import metrics_row, write_status
from workbench.widgets import LiveCurves, in_kernel, live_front_end, state_line
from workbench.widgets.live import MetricsTail


def rows(count):
    rng = np.random.default_rng(0)
    return [metrics_row(step, count, rng) for step in range(1, count + 1)]


def lines(records):
    return "".join(json.dumps(record) + "\n" for record in records)


@settings(deadline=None, max_examples=25)
@given(st.lists(st.integers(0, 4000), max_size=6))
def test_any_way_of_cutting_the_file_gives_the_same_rows(tmp_path_factory, cuts):
    path = tmp_path_factory.mktemp("tail") / "metrics.jsonl"
    content = lines(rows(8)).encode()
    tail = MetricsTail(path)
    for end in [*sorted(min(cut, len(content)) for cut in cuts), len(content)]:
        path.write_bytes(content[:end])
        tail.read()
        complete = content[:end].count(b"\n")
        assert list(tail.metrics.get("step", [])) == list(range(1, complete + 1))
    pd.testing.assert_frame_equal(tail.metrics, pd.DataFrame(rows(8)))


def test_a_resumed_run_replaces_the_steps_it_repeats(tmp_path):
    path = tmp_path / "metrics.jsonl"
    first, again = rows(6), rows(4)
    again[3]["entropy/mean"] = 9.0
    path.write_text(lines(first))
    tail = MetricsTail(path)
    assert tail.read() and not tail.read()
    path.write_text(lines(again))
    assert tail.read()
    assert list(tail.metrics["step"]) == [1, 2, 3, 4] and tail.metrics["entropy/mean"].iloc[-1] == 9.0


def test_lines_torn_by_a_crash_are_passed_over(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text(lines(rows(2)) + '{"step": 3, "entr\n[1]\n' + lines(rows(4)[3:]))
    tail = MetricsTail(path)
    tail.read()
    assert list(tail.metrics["step"]) == [1, 2, 4]


def test_curves_grow_with_the_run_and_tell_its_state(tmp_path):
    curves = LiveCurves(tmp_path)
    assert curves.poll() == "waiting for the run to start"
    with (tmp_path / "metrics.jsonl").open("a") as file:
        for row in rows(5):
            file.write(json.dumps(row) + "\n")
            file.flush()
            write_status(tmp_path, "running", step=row["step"], steps=5)
            assert curves.poll() == f"running, step {row['step']} of 5"
            assert all(list(trace.x) == list(range(1, row["step"] + 1)) for trace in curves.figure.data)
    assert curves.figure.data[0].name == "Entropy, raw"
    assert curves.figure.layout.meta["run"] == tmp_path.name
    write_status(tmp_path, "failed", step=5, steps=5, reason="disk full")
    curves.poll()
    assert curves.state.value == "failed at step 5 of 5: disk full"


def test_silence_is_reported_as_a_stall():
    status = {"state": "running", "step": 3, "steps": 9, "heartbeat": time.time() - 16}
    assert state_line(status).startswith("stalled? step 3 of 9; last sign of life 16")
    assert state_line(status | {"heartbeat": time.time()}) == "running, step 3 of 9"
    assert state_line(status | {"state": "finished"}) == "finished, step 3 of 9"
    assert state_line(status | {"state": "lost", "reason": "gone"}) == "lost at step 3 of 9: gone"


def test_a_test_process_is_no_kernel_even_when_told_to_be_live(monkeypatch):
    monkeypatch.setenv("WORKBENCH_LIVE", "1")
    assert not in_kernel() and not live_front_end()
