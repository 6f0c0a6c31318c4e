"""Every notebook executed headless at the smallest scale; runs are shared, as they are for users."""

import json
from pathlib import Path

import pytest

from workbench.report import export_html, read_card
from workbench.study.definitions import study_names
from workbench.study.notebooks import execute_notebook

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
FOREIGN = Path(__file__).parents[1] / "data" / "foreign"
SHARED_BUDGET, STANDALONE_BUDGET = 1_000_000, 6_000_000
PARAMETERS = {name: {"scale": "smoke", "seeds": [0], "jobs": 2} for name in study_names()} | {
    "00_quickstart": {"scale": "smoke"},
    "02_bring_your_own_model": {"scale": "smoke"},
    "03_import_foreign_runs": {"source": str(FOREIGN / "verl"), "rollouts": str(FOREIGN / "verl" / "rollouts")},
    "30_scorecard": {"scale": "smoke", "seeds": [0]},
    "90_base_policy": {"steps": 5, "evaluation_prompts": 2, "evaluation_samples": 2},
}
"""What each notebook is given; those that other tests execute are left out."""
ELSEWHERE = {"01_explore_runs"}

pytestmark = pytest.mark.notebooks


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    return tmp_path_factory.mktemp("outputs")


def test_no_notebook_is_forgotten():
    assert {path.stem for path in NOTEBOOKS.glob("*.ipynb")} - ELSEWHERE == set(PARAMETERS)


@pytest.mark.parametrize("name", PARAMETERS)
def test_it_runs_and_leaves_its_report(name, outputs, tmp_path):
    given = dict(PARAMETERS[name])
    if name == "90_base_policy":
        given["output"] = str(outputs / "policy")
    executed = execute_notebook(NOTEBOOKS / f"{name}.ipynb", given, outputs)
    assert json.loads((executed.notebook.parent / "manifest.json").read_text())["state"] == "done"
    card = read_card(executed.report)
    assert card["state"] == "done" and executed.report.stat().st_size < SHARED_BUDGET
    alone = export_html(executed.notebook, tmp_path / "alone.html", standalone=True)
    assert alone.stat().st_size < STANDALONE_BUDGET
    if name in study_names():
        assert card["question"].endswith("?") and card["thumbnail"].startswith("<svg")
        assert card["verdicts"]["inconclusive"] > 0 and card["verdicts"]["reproduced"] == 0, "one seed decides nothing"
