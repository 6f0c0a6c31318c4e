"""Pure functions on tables: what is measured, how, and in which unit. They know neither models nor the trainer."""

from workbench.metrics.performance import pass_at_k, pass_at_k_table
from workbench.metrics.step import ALL_METRICS, step_metrics, update_metrics

__all__ = ["ALL_METRICS", "pass_at_k", "pass_at_k_table", "step_metrics", "update_metrics"]
