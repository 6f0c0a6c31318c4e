"""Figures: pure functions from a data frame to a plotly Figure, in one theme, each with a summary and a data table.

Add a figure as a function in the file of its subject; colours, axes and units come from `theme`.
"""

from workbench.metrics.series import ema
from workbench.plots.curves import entropy_by_sign, metric_curve, published_entropy, training_curves
from workbench.plots.describe import data_table, summary
from workbench.plots.events import parting, warned
from workbench.plots.frontier import frontier
from workbench.plots.ledger import forecast_bars, forecast_scatter, waterfall
from workbench.plots.overlay import overlay
from workbench.plots.performance import pass_at_k
from workbench.plots.published import (
    published_curve,
    published_curves,
    published_scores,
    published_table,
    published_tables,
)
from workbench.plots.quadrant import inside, quadrants
from workbench.plots.questions import accuracy_by_difficulty, fluctuation
from workbench.plots.relations import changes_by_part, entropy_by_position, metrics_together, scores_together
from workbench.plots.samples import logp_violins, pass_curves, pass_rates, prompt_scatter
from workbench.plots.sampling import thin
from workbench.plots.strip import film_strip
from workbench.plots.study import (
    against_published,
    arm_curves,
    entropy_against,
    published_arms,
    score_by_rollouts,
    score_curves,
    verdicts,
)
from workbench.plots.text import plain

__all__ = [
    "accuracy_by_difficulty",
    "against_published",
    "arm_curves",
    "changes_by_part",
    "data_table",
    "ema",
    "entropy_against",
    "entropy_by_position",
    "entropy_by_sign",
    "film_strip",
    "fluctuation",
    "forecast_bars",
    "forecast_scatter",
    "frontier",
    "inside",
    "logp_violins",
    "metric_curve",
    "metrics_together",
    "overlay",
    "parting",
    "pass_at_k",
    "pass_curves",
    "pass_rates",
    "plain",
    "prompt_scatter",
    "published_arms",
    "published_curve",
    "published_curves",
    "published_entropy",
    "published_scores",
    "published_table",
    "published_tables",
    "quadrants",
    "score_by_rollouts",
    "score_curves",
    "scores_together",
    "summary",
    "thin",
    "training_curves",
    "verdicts",
    "warned",
    "waterfall",
]
