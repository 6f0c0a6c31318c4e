"""The entropy workbench: reinforcement learning of language models, with the entropy of every token in view.

Everything a notebook needs is imported from here: `import workbench as wb`.
"""

import os

# Before torch is imported: its OpenMP threads otherwise spin for milliseconds at every barrier. Beside a twin on the
# same two cores a rollout step took 4.2 s so and 2.8 s with this bound (tests/benchmarks/contention.sh).
os.environ.setdefault("GOMP_SPINCOUNT", "3000")

from importlib import import_module

from workbench import methods, tasks
from workbench.config import ConfigError, RunConfig, load_config, make_config
from workbench.presets import PRESETS, preset

# Found when first used: notebooks, figures and the trainer bring transformers, nbconvert and plotly, seconds of import
# that a command which only reads a config or a run does not need.
_LAZY = {
    "NotebookFailed": "workbench.study.notebooks",
    "PretrainConfig": "workbench.training.pretrain",
    "Run": "workbench.store",
    "Study": "workbench.study.study",
    "calibration_table": "workbench.metrics.calibration",
    "course_table": "workbench.metrics.course",
    "diversity_table": "workbench.metrics.diversity",
    "ema": "workbench.metrics.series",
    "evaluation_table": "workbench.metrics.evaluation",
    "execute_notebook": "workbench.study.notebooks",
    "executions": "workbench.study.notebooks",
    "explore": "workbench.widgets.explorer",
    "export_html": "workbench.report",
    "import_run": "workbench.store",
    "list_runs": "workbench.store",
    "open_run": "workbench.store",
    "parse_parameters": "workbench.study.notebooks",
    "pass_at_k_table": "workbench.metrics.performance",
    "performance_table": "workbench.metrics.performance",
    "pretrain": "workbench.training.pretrain",
    "prompt_entropy_table": "workbench.metrics.prompt_entropy",
    "provenance": "workbench.report",
    "reliability_table": "workbench.metrics.calibration",
    "runs": "workbench.store",
    "scorecard": "workbench.study.scorecard",
    "spearman": "workbench.metrics.statistics",
    "sql": "workbench.store",
    "table_over_seeds": "workbench.metrics.performance",
    "token_view": "workbench.widgets",
    "train": "workbench.study.launch",
    "watch": "workbench.widgets.monitor",
}
_LAZY_MODULES = ("metrics", "plots")

__all__ = [
    "PRESETS",
    "ConfigError",
    "RunConfig",
    "load_config",
    "make_config",
    "methods",
    "preset",
    "tasks",
    *_LAZY,
    *_LAZY_MODULES,
]


def __getattr__(name: str):
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    if name in _LAZY_MODULES:
        return import_module(f"workbench.{name}")
    raise AttributeError(f"module 'workbench' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
