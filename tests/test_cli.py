"""The command line as a user meets it: help, exit codes, no tracebacks."""

import pytest
from click.testing import CliRunner

import workbench as wb
from workbench.__main__ import main
from workbench.training import train_run


def run(*arguments):
    return CliRunner().invoke(main, [str(a) for a in arguments], prog_name="python -m workbench")


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    return train_run(wb.preset("smoke", {"training.steps": 2}), root, log=lambda line: None)


def test_every_command_has_help():
    assert set(main.commands) >= {
        "quickstart", "train", "evaluate", "notebook", "runs", "show", "report", "lab", "pretrain", "methods",
    }  # fmt: skip
    for name in main.commands:
        result = run(name, "--help")
        assert result.exit_code == 0
        assert len(result.output.splitlines()) > 4


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["train", "seeed=1"], "did you mean 'seed'"),
        (["train", "--preset", "cpuu"], "did you mean 'cpu'"),
        (["train", "--config", "absent.yaml"], "absent.yaml"),
        (["show", "absent"], "no run at 'absent'"),
        (["notebook", "absent"], "no notebook 'absent'"),
        (["notebook", "00_quickstart", "stepps=3"], "did you mean 'steps'"),
        (["report", "absent.ipynb"], "no notebook at"),
        (["evaluate", "bundled", "--sets", "redcue"], "did you mean 'reduce'"),
        (["evaluate", "/absent/model"], "could not be loaded"),
        (["methods", "grop"], "did you mean 'grpo'"),
        (["pretrain", "stepps=3"], "stepps"),
    ],
)
def test_user_errors_are_one_message_and_exit_1(arguments, says, tmp_path):
    if arguments[0] == "evaluate":
        arguments = [*arguments, "--out", tmp_path]
    result = run(*arguments)
    assert result.exit_code == 1
    assert says in result.output
    assert "Traceback" not in result.output


def test_usage_errors_exit_2():
    assert run("nonsense").exit_code == 2
    assert run("show").exit_code == 2


def test_dry_run_prints_the_config_and_computes_nothing(tmp_path):
    result = run("train", "--dry-run", "--root", tmp_path, "seed=7", "objective.clip_high=.inf")
    assert result.exit_code == 0
    assert "seed: 7" in result.output
    assert "clip_high: .inf" in result.output
    assert list(tmp_path.iterdir()) == []


def test_runs_and_show(stored):
    assert stored.name in run("runs", "--root", stored.parent).output
    shown = run("show", stored).output
    assert "state: finished, step 2 of 2" in shown
    assert "entropy/mean" in shown
    rollouts = run("show", stored, "--step", 2, "--count", 3).output
    assert len(rollouts.strip().splitlines()) == 4
    assert run("show", stored, "--step", 99).exit_code == 1


def test_evaluate_is_resumable(stored, tmp_path):
    arguments = ("evaluate", stored, "--sets", "reduce,countdown", "--prompts", 4, "--samples", 2, "--out", tmp_path)
    first = run(*arguments)
    assert first.exit_code == 0, first.output
    files = sorted(tmp_path.rglob("*.parquet"))
    assert [f.stem for f in files] == ["countdown", "reduce"]
    before = files[0].stat().st_mtime_ns
    files[1].unlink()
    second = run(*arguments)
    assert "countdown: sampled already" in second.output
    assert files[0].stat().st_mtime_ns == before
    assert files[1].exists()


def test_methods_are_listed_with_their_papers():
    listed = run("methods").output
    assert "pos_adv_reweight" in listed
    assert "2511.05993" in listed
    assert "target" in run("methods", "pos_adv_reweight").output
