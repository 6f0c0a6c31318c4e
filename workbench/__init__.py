"""The entropy workbench: reinforcement learning of language models, with the entropy of every token in view.

Everything a notebook needs is imported from here: `import workbench as wb`.
"""

from workbench import methods, tasks  # noqa: F401  (importing them registers their names with the config)
from workbench.config import ConfigError, RunConfig, load_config, make_config
from workbench.metrics.performance import pass_at_k_table
from workbench.presets import PRESETS, preset
from workbench.report import export_html
from workbench.store import DEFAULT_ROOT, Run, list_runs, open_run, runs, sql
from workbench.study import NotebookFailed, execute_notebook, parse_parameters, train

__all__ = [
    "DEFAULT_ROOT",
    "PRESETS",
    "ConfigError",
    "NotebookFailed",
    "Run",
    "RunConfig",
    "execute_notebook",
    "export_html",
    "list_runs",
    "load_config",
    "make_config",
    "open_run",
    "parse_parameters",
    "pass_at_k_table",
    "preset",
    "runs",
    "sql",
    "train",
]
