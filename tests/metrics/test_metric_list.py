"""The list of metrics is generated, current, and complete."""

from pathlib import Path

import pytest

import workbench as wb
from tests.methods.cases import CASES
from tests.methods.made_up import methods_of
from workbench.config import METHODS
from workbench.methods.base import Method
from workbench.metrics.course import COURSE_METRICS
from workbench.metrics.evaluation import EVALUATION_METRICS
from workbench.report.metric_list import metric_markdown, metric_sections
from workbench.store import Run
from workbench.training import train_run
from workbench.training.trainer import Trainer

EVERY = [metric for metrics in metric_sections().values() for metric in metrics]
NAMES = {metric.name for metric in EVERY} | {"step"}
REPORTING = [name for name, method in METHODS.items() if method.measures is not Method.measures]
DOCUMENT = Path(wb.__file__).parent / "metrics" / "METRICS.md"


def test_the_document_is_what_the_code_says():
    assert DOCUMENT.read_text() == metric_markdown(), (
        "run `python -m workbench metrics --markdown` and store its output"
    )


def test_every_metric_says_what_it_is_and_when_it_misleads():
    assert len({metric.name for metric in EVERY}) == len(EVERY)
    for metric in EVERY:
        assert "/" in metric.name or metric.name == "lr" or metric in (*EVALUATION_METRICS, *COURSE_METRICS)
        assert metric.unit
        assert min(len(metric.definition), len(metric.mask), len(metric.misleads)) >= 4, metric.name
        assert f"| `{metric.name}` |" in DOCUMENT.read_text()


def test_everything_in_a_run_folder_is_listed(tmp_path):
    config = wb.preset("smoke", {"training.steps": 1, "evaluation.sets": [], "methods": ["grpo", "clip_v"]})
    metrics = Run(train_run(config, tmp_path, log=lambda line: None)).metrics
    assert {"time/step", "entropy/ema", "change/entropy", "method/clip_v/removed_fraction"} <= set(metrics)
    assert set(metrics) <= NAMES


@pytest.mark.parametrize("name", REPORTING)
def test_everything_a_method_reports_is_listed(name):
    case = CASES[name]
    config = {"rollout.prompts": 4, "training.updates_per_rollout": 2, "methods": methods_of(name, case)}
    trainer = Trainer(wb.preset("smoke", config | case.config))
    reported = trainer.step(1).metrics.keys() | trainer.step(2).metrics.keys()
    assert reported <= NAMES
    assert any(key.startswith(f"method/{name}/") for key in reported)
