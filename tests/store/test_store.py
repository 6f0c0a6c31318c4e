"""Files that survive, frames that read them, SQL across runs."""

from concurrent.futures import ThreadPoolExecutor

import pytest

import workbench as wb
from workbench.store.files import append_line, read_lines, write_atomic, write_shared
from workbench.tables import SEQUENCE_COLUMNS, TOKEN_COLUMNS
from workbench.training import train_run


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    for seed in (0, 1):
        train_run(wb.preset("smoke", {"seed": seed, "training.steps": 3}), root, log=lambda line: None)
    return root


def test_a_failed_write_leaves_the_old_content(tmp_path):
    path = tmp_path / "file"
    write_atomic(path, lambda p: p.write_text("old"))

    def fail(partial):
        partial.write_text("half")
        raise OSError("no")

    with pytest.raises(OSError, match="no"):
        write_atomic(path, fail)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_half_a_line_is_not_read(tmp_path):
    path = tmp_path / "log"
    append_line(path, "one")
    with path.open("a") as file:
        file.write("tw")
    assert read_lines(path) == ["one"]
    assert read_lines(tmp_path / "absent") == []


def test_a_run_reads_back_as_frames(root):
    run = wb.list_runs(root)[0]
    assert run.config.run_id == run.id
    assert run.metrics["step"].tolist() == [1, 2, 3]
    assert (run.metrics["time/step"] > 0).all()
    assert run.rollout_steps == [1, 2, 3]
    stored = run.rollouts(3)
    assert set(stored.sequences) >= set(SEQUENCE_COLUMNS) - {"offline"}
    assert set(stored.tokens) >= set(TOKEN_COLUMNS) - {"ref_logp", "entropy_before", "logp_before"}
    assert stored.tokens.groupby("sequence")["piece"].agg("".join).tolist() == stored.sequences["text"].tolist()
    drawn = stored.tokens.query("token == top1_token")
    assert len(drawn) > 0 and (drawn["piece"] == drawn["top1_piece"]).all()
    assert (drawn["top1_logp"] == drawn["rollout_logp"]).all() and (drawn["top3_logp"] < drawn["top1_logp"]).all()
    assert stored.tokens.groupby("sequence").size().tolist() == stored.sequences["length"].tolist()
    assert set(run.evals["step"]) == {0, 3}
    assert run.provenance["packages"]["torch"]


def test_entropy_of_the_metrics_is_that_of_the_stored_tokens(root):
    run = wb.list_runs(root)[0]
    for step in run.rollout_steps:
        stored = run.rollouts(step).tokens["entropy"].astype("float64").mean()
        assert run.metrics.set_index("step").loc[step, "entropy/mean"] == pytest.approx(stored, rel=1e-6)


def test_missing_things_are_named(root, tmp_path):
    with pytest.raises(KeyError, match=r"kept steps: \[1, 2, 3\]"):
        wb.list_runs(root)[0].rollouts(77)
    with pytest.raises(FileNotFoundError, match="no run at"):
        wb.open_run(tmp_path / "nothing")


def test_all_runs_as_one_frame(root):
    table = wb.runs(root)
    assert table["seed"].tolist() == [0, 1] or table["seed"].tolist() == [1, 0]
    assert set(table["state"]) == {"finished"}
    assert {"objective.clip_high", "entropy/mean"} <= set(table)
    assert wb.runs(root / "nothing").empty


def test_sql_over_all_runs(root):
    got = wb.sql('select run, max(step) as last, avg("entropy/mean") as h from metrics group by run order by run', root)
    assert got["last"].tolist() == [3, 3]
    tokens = wb.sql("select run, step, avg(entropy) as h from tokens group by run, step order by run, step", root)
    assert tokens["step"].tolist() == [1, 2, 3, 1, 2, 3]
    joined = wb.sql("select r.seed, m.step from runs r join metrics m using (run) where r.seed = 1", root)
    assert len(joined) == 3
    assert wb.sql("select distinct step from evals order by step", root)["step"].tolist() == [0, 3]


def test_a_checkpoint_is_a_normal_hugging_face_model(root):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = wb.list_runs(root)[0].checkpoints[3]
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    out = model.generate(**tokenizer("2+3*4-1+2=", return_tensors="pt", return_token_type_ids=False), max_new_tokens=20)
    assert tokenizer.decode(out[0]).startswith("2+3*4-1+2=")


def test_a_file_that_many_write_at_once_is_whole_whoever_was_last(tmp_path):
    texts = [str(writer) * 50_000 for writer in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda text: [write_shared(tmp_path / "shared.html", text) for _ in range(20)], texts))
    assert (tmp_path / "shared.html").read_text() in texts and len(list(tmp_path.iterdir())) == 1
