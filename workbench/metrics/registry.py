"""Metrics document themselves: the code that computes a number carries its unit, formula, mask and caveat."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from workbench.tables import Rollouts

Compute = Callable[[Rollouts], Mapping[str, Tensor | float]]


@dataclass(frozen=True)
class Metric:
    """What one logged number means. `name` is stable and '/'-separated."""

    name: str
    unit: str
    definition: str
    """the formula, or the words that amount to one"""
    mask: str
    """which rows it is taken over"""
    misleads: str
    """when the number says something else than it seems to"""


class Registry:
    """An ordered set of metrics computed together."""

    def __init__(self):
        self.metrics: dict[str, Metric] = {}
        self._parts: list[tuple[Compute, set[str]]] = []

    def measures(self, *metrics: Metric) -> Callable[[Compute], Compute]:
        """Decorator: register a function Rollouts -> {name: scalar} that gives the values of `metrics`.

        It leaves out what does not apply (no such column). Raises `ValueError` for a name that is defined already.
        """

        def add(compute: Compute) -> Compute:
            for metric in metrics:
                if metric.name in self.metrics:
                    raise ValueError(f"metric '{metric.name}' is defined twice")
                self.metrics[metric.name] = metric
            self._parts.append((compute, {metric.name for metric in metrics}))
            return compute

        return add

    def compute(self, rollouts: Rollouts) -> dict[str, float]:
        """All metrics that apply, in order of definition; NaN where a mean has nothing to average.

        Raises `ValueError` if a function returns a name it did not register.
        """
        values: dict[str, float] = {}
        for compute, names in self._parts:
            given = compute(rollouts)
            if unknown := given.keys() - names:
                raise ValueError(f"{compute.__name__} returned undocumented metrics {sorted(unknown)}")
            values |= {name: float(value) for name, value in given.items()}
        return {name: values[name] for name in self.metrics if name in values}


def masked_mean(values: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean of values [N] where mask [N]; NaN when nothing is selected. Summed in fp64."""
    chosen = values if mask is None else values[mask]
    return chosen.double().mean() if len(chosen) else torch.tensor(float("nan"))


def means_by_class(values: Tensor, label: Tensor, count: int) -> list[Tensor]:
    """Mean of values [N] in each class 0 … count − 1 of label [N] (int64); NaN for an empty class. Summed in fp64."""
    sums = torch.zeros(count, dtype=torch.float64, device=values.device).index_add_(0, label, values.double())
    return list(sums / torch.bincount(label, minlength=count))


def shares_by_class(values: Tensor, label: Tensor, count: int) -> list[Tensor]:
    """Σ of values [N] in each class of label [N], over N: contributions that add up to the mean of all values."""
    sums = torch.zeros(count, dtype=torch.float64, device=values.device).index_add_(0, label, values.double())
    return list(sums / len(values))


def correlation(x: Tensor, y: Tensor) -> Tensor:
    """Pearson correlation of x [N] and y [N] in fp64; NaN where one of them is constant."""
    x, y = x.double() - x.double().mean(), y.double() - y.double().mean()
    return (x @ y) / (x.norm() * y.norm())


def covariance(x: Tensor, y: Tensor) -> Tensor:
    """Population covariance of x [N] and y [N] in fp64."""
    return ((x.double() - x.double().mean()) * (y.double() - y.double().mean())).mean()
