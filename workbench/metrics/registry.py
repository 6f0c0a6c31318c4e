"""Metrics document themselves: the code that computes a number carries its unit and its definition."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from workbench.tables import Rollouts


@dataclass(frozen=True)
class Metric:
    """One number per rollout step. `compute` returns None where it does not apply (no such column)."""

    name: str
    unit: str
    definition: str
    compute: Callable[[Rollouts], Tensor | None] | None = None
    """None for what is not computed from the tables"""


class Registry:
    """An ordered set of metrics computed together."""

    def __init__(self):
        self.metrics: dict[str, Metric] = {}

    def metric(self, name: str, unit: str, definition: str) -> Callable:
        """Decorator: register a function Rollouts -> scalar tensor under a stable, '/'-separated name."""

        def add(compute: Callable[[Rollouts], Tensor | None]) -> Callable[[Rollouts], Tensor | None]:
            if name in self.metrics:
                raise ValueError(f"metric '{name}' is defined twice")
            self.metrics[name] = Metric(name, unit, definition, compute)
            return compute

        return add

    def compute(self, rollouts: Rollouts) -> dict[str, float]:
        """All metrics that apply, in order of definition; NaN where a mean has nothing to average."""
        values = ((name, metric.compute(rollouts)) for name, metric in self.metrics.items())
        return {name: float(value) for name, value in values if value is not None}


def masked_mean(values: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean of values [N] where mask [N]; NaN when nothing is selected. Summed in fp64."""
    chosen = values if mask is None else values[mask]
    return chosen.double().mean() if len(chosen) else torch.tensor(float("nan"))
