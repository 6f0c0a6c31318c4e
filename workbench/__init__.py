"""The entropy workbench: reinforcement learning of language models, with the entropy of every token in view.

Everything a notebook needs is imported from here: `import workbench as wb`.
"""

import os

# Before torch is imported: its OpenMP threads otherwise spin for milliseconds at every barrier. Beside a twin on the
# same two cores a rollout step took 4.2 s so and 2.8 s with this bound (tests/benchmarks/contention.sh).
os.environ.setdefault("GOMP_SPINCOUNT", "3000")

from workbench import methods, plots, tasks
from workbench.config import ConfigError, RunConfig, load_config, make_config
from workbench.metrics.performance import pass_at_k_table
from workbench.presets import PRESETS, preset
from workbench.report import export_html, provenance
from workbench.store import Run, list_runs, open_run, runs, sql
from workbench.study import NotebookFailed, execute_notebook, parse_parameters, train
from workbench.training.pretrain import PretrainConfig, pretrain
from workbench.widgets import token_view

__all__ = [
    "PRESETS",
    "ConfigError",
    "NotebookFailed",
    "PretrainConfig",
    "Run",
    "RunConfig",
    "execute_notebook",
    "export_html",
    "list_runs",
    "load_config",
    "make_config",
    "methods",
    "open_run",
    "parse_parameters",
    "pass_at_k_table",
    "plots",
    "preset",
    "pretrain",
    "provenance",
    "runs",
    "sql",
    "tasks",
    "token_view",
    "train",
]
