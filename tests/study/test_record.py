"""What was measured before stands in for the runs it was computed from, and for no others."""

import json
import math

import numpy as np
import pytest

import workbench.study.scorecard as module
from tests.synthetic import metrics_row, write_status
from workbench.config import ConfigError
from workbench.study.definitions import study_names
from workbench.study.record import Entry, Record, read_record
from workbench.study.scorecard import make_scorecard, needed_cells, scorecard
from workbench.study.study import Study

CLIP = "14_clip_thresholds"


def store(study, seeds):
    """Made-up runs of all arms of `study` at `seeds`; entropy ends higher the later an arm stands in the list."""
    for (arm, seed), cell in study.cells.items():
        if seed in seeds:
            rng, rank = np.random.default_rng(seed), study.definition.arms.index(arm)
            cell.output.mkdir(parents=True)
            (cell.output / "config.yaml").write_text(cell.config.to_yaml())
            (cell.output / "provenance.json").write_text(json.dumps({"git": {"commit": "abcdef0123", "dirty": True}}))
            write_status(cell.output, "finished", step=40, steps=40)
            rows = [metrics_row(step, 40, rng) for step in range(1, 41)]
            for row in rows:
                row["entropy/mean"] += 0.1 * rank * row["step"] / 40
            (cell.output / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def made_up(root, seeds):
    study = Study(CLIP, "smoke", (0, 1, 2), root)
    store(study, seeds)
    return study


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    """A record of all three seeds, and the card of the runs it was made from."""
    folder = tmp_path_factory.mktemp("theirs")
    root = made_up(folder / "runs", (0, 1, 2)).root
    studies = [Study(name, "smoke", (0, 1, 2), root) for name in study_names()]
    Record(entry for study in studies for entry in study.entries()).write(folder / "scorecard.csv")
    return folder / "scorecard.csv", scorecard("smoke", (0, 1, 2), folder / "runs", folder)


def verdicts(card):
    table = card.table.set_index("claim")
    return table[["verdict", "seeds"]], table[["measured", "low", "high"]].to_numpy(dtype=float)


@pytest.mark.parametrize("here", [(), (1,)])
def test_verdicts_are_those_of_the_runs(record, tmp_path, here):
    path, theirs = record
    made_up(tmp_path / "runs", here)
    card = scorecard("smoke", (0, 1, 2), tmp_path / "runs", tmp_path, path)
    assert verdicts(card)[0].equals(verdicts(theirs)[0]) and theirs.counts["reproduced"] > 0
    np.testing.assert_allclose(verdicts(card)[1], verdicts(theirs)[1], rtol=1e-4, atol=1e-6)
    numbers = len(read_record(path))
    recorded = numbers * (3 - len(here)) // 3
    assert f"{recorded} of the {numbers} numbers per seed are those recorded in scorecard.csv" in card.note
    assert "recorded" not in theirs.note


def test_a_record_is_found_from_a_folder_below(record, tmp_path, monkeypatch):
    below = record[0].parent / "notebooks"
    below.mkdir()
    monkeypatch.chdir(below)
    card = scorecard("smoke", (0, 1, 2), tmp_path / "runs", tmp_path, record[0].name)
    assert card.counts["reproduced"] > 0


def test_runs_here_count_before_what_is_recorded(record, tmp_path):
    study = made_up(tmp_path / "runs", (0,))
    others = Record(Entry(e.claim, e.effect, e.seed, e.runs, e.value + 1) for e in read_record(record[0]))
    here, both = study.findings(), study.findings(others)
    for alone, judged in zip(here, both, strict=True):
        if alone.seeds:
            assert judged.seeds == (0, 1, 2) and judged.recorded == 2 and judged.values[0] == alone.values[0]


def test_only_what_the_record_lacks_is_needed(record, tmp_path):
    study, known = Study(CLIP, "smoke", (0, 1, 2, 3), tmp_path), read_record(record[0])
    needed = needed_cells([study], known)
    assert {cell.config.seed for cell in needed} == {3}
    assert len(needed) == len({arm for finding in study.findings() for arm in finding.claim.arms})
    assert {cell.config.seed for cell in needed_cells([study], Record())} == {0, 1, 2, 3}


def test_the_command_adds_what_runs_measured_and_makes_no_run_that_is_recorded(record, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "study_names", lambda: [CLIP])
    made_up(tmp_path / "one" / "runs", (0, 1, 2))
    file, said = tmp_path / "kept.csv", []
    report = make_scorecard("smoke", (0, 1, 2), tmp_path / "one", record=file, log=said.append)
    assert "0 to execute" in said[0] and report.exists() and "kept.csv" in report.read_text()
    assert {entry.key for entry in read_record(file)} == {e.key for e in read_record(record[0]) if e.claim[:2] == "14"}
    before = file.read_text()
    make_scorecard("smoke", (0, 1, 2), tmp_path / "two", record=file, log=said.append)
    assert "0 cells" in said[-1] and not (tmp_path / "two" / "runs").exists() and file.read_text() == before


@pytest.mark.parametrize("change", [{"runs": "00000000"}, {"effect": "Order(higher='a', lower='b')"}, {"seed": 7}])
def test_numbers_of_other_runs_effects_and_seeds_do_not_count(record, tmp_path, change):
    study = Study(CLIP, "smoke", (0, 1, 2), tmp_path)
    changed = Record(Entry(**(vars(entry) | change)) for entry in read_record(record[0]))
    assert all(finding.verdict == "not run" for finding in study.findings(changed))


def test_a_record_reads_as_it_was_written(record, tmp_path):
    first = next(iter(read_record(record[0])))
    assert first.commit == "abcdef0+"
    nothing = Entry("a/b", "Order(higher='x, \"y\"', lower='=1')", 1, "12ab", math.nan)
    Record([first, nothing]).write(tmp_path / "r.csv")
    again = {entry.claim: entry for entry in read_record(tmp_path / "r.csv")}
    assert again[first.claim] == first
    assert again["a/b"].effect == nothing.effect and math.isnan(again["a/b"].value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "No such file"),
        ("claim,value\na/b,1\n", "its columns are not claim, effect, seed"),
        ("claim,effect,seed,runs,value,commit\na/b,o,zero,ab,1,c\n", "line 2: invalid literal"),
        ("claim,effect,seed,runs,value,commit\na/b,o,0,ab,inf,c\n", "line 2: the value is infinite"),
        ("claim,effect,seed,runs,value,commit\na/b,o,0,ab,1,c,more\n", "line 2"),
        ("claim,effect,seed,runs,value,commit\na/b,o,0\n", "line 2"),
    ],
)
def test_a_file_that_is_no_record_is_refused(tmp_path, text, said):
    if text is not None:
        (tmp_path / "r.csv").write_text(text)
    with pytest.raises(ConfigError, match=f"record '.*' cannot be read: .*{said}"):
        scorecard("smoke", (0,), tmp_path / "runs", tmp_path, tmp_path / "r.csv")
