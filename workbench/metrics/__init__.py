"""Pure functions on tables: what is measured, how, and in which unit. They know neither models nor the trainer."""

from workbench.metrics.bleu import ngram_diversity, self_bleu, words
from workbench.metrics.calibration import (
    auroc,
    brier,
    calibration_table,
    expected_calibration_error,
    logp_gap,
    mean_logp,
    reliability,
    reliability_table,
)
from workbench.metrics.course import course_table
from workbench.metrics.diversity import (
    distinct_answers,
    distinct_correct,
    diversity_by_prompt,
    diversity_table,
    semantic_entropy,
)
from workbench.metrics.evaluation import evaluation_table
from workbench.metrics.instructions import instruction_table
from workbench.metrics.law import LawFit, fit_law
from workbench.metrics.majority import maj_at_ks, majority
from workbench.metrics.performance import (
    pass_at_k,
    pass_at_k_table,
    performance_by_prompt,
    performance_table,
    prompt_accuracy,
    table_over_seeds,
)
from workbench.metrics.prompt_entropy import (
    prompt_entropy_and_accuracy,
    prompt_entropy_by_prompt,
    prompt_entropy_table,
)
from workbench.metrics.series import ema
from workbench.metrics.stages import plateau_start, stage_of_steps, two_segments
from workbench.metrics.statistics import bootstrap_interval, bootstrap_over_seeds, spearman
from workbench.metrics.step import ALL_METRICS, change_metrics, step_metrics, update_metrics
from workbench.metrics.stored import rollouts_from_frames, summarise
from workbench.metrics.token_classes import TokenClasses, by_class, classify

__all__ = [
    "ALL_METRICS",
    "LawFit",
    "TokenClasses",
    "auroc",
    "bootstrap_interval",
    "bootstrap_over_seeds",
    "brier",
    "by_class",
    "calibration_table",
    "change_metrics",
    "classify",
    "course_table",
    "distinct_answers",
    "distinct_correct",
    "diversity_by_prompt",
    "diversity_table",
    "ema",
    "evaluation_table",
    "expected_calibration_error",
    "fit_law",
    "instruction_table",
    "logp_gap",
    "maj_at_ks",
    "majority",
    "mean_logp",
    "ngram_diversity",
    "pass_at_k",
    "pass_at_k_table",
    "performance_by_prompt",
    "performance_table",
    "plateau_start",
    "prompt_accuracy",
    "prompt_entropy_and_accuracy",
    "prompt_entropy_by_prompt",
    "prompt_entropy_table",
    "reliability",
    "reliability_table",
    "rollouts_from_frames",
    "self_bleu",
    "semantic_entropy",
    "spearman",
    "stage_of_steps",
    "step_metrics",
    "summarise",
    "table_over_seeds",
    "two_segments",
    "update_metrics",
    "words",
]
