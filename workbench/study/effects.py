"""What a claim says of its runs: one number per seed, and the region it has to lie in.

An effect names arms and metrics, reads them through `Measured` and knows nothing of files: the same effect is computed
on stored runs, on published curves and on made-up ones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from workbench.metrics.statistics import spearman

ENTROPY = "entropy/mean"
HELD = 0.2
"""A target counts as held within this relative distance; published runs stay within 16 % of theirs."""
LAST = 10
"""Steps whose mean is the final value of a curve."""
FIRST = 3
"""Steps whose mean is the first value of a curve."""

Region = tuple[float, float]


class NotMeasured(LookupError):
    """What an effect needs is not there: no run of an arm, or a run that did not record the metric."""


class Measured(Protocol):
    """Runs by arm and seed. Both readers raise `NotMeasured` for what was not recorded; it is never taken as zero."""

    def seeds(self, arm: str) -> set[int]:
        """Seeds with a finished run."""

    def curve(self, arm: str, metric: str, seed: int) -> np.ndarray:
        """[steps]: a metric of every rollout step; NaN where there was nothing to average."""

    def score(self, arm: str, measure: str, seed: int, where: str | None = None) -> np.ndarray:
        """[evaluated steps]: a measure, such as pass@16, of the evaluation set `where`, by default that trained on."""


class Effect(Protocol):
    """`arms` it needs, `unit` of its value, the `region` the claim puts it in, and its value for one seed."""

    @property
    def arms(self) -> tuple[str, ...]: ...
    @property
    def unit(self) -> str: ...
    @property
    def region(self) -> Region: ...
    def of(self, runs: Measured, seed: int) -> float: ...


@dataclass(frozen=True)
class Order:
    """Final value (mean of the last ten steps) of a metric in `higher` minus that in `lower`; claimed positive."""

    higher: str
    lower: str
    metric: str = ENTROPY
    region = (0.0, math.inf)

    @property
    def arms(self) -> tuple[str, ...]:
        return self.higher, self.lower

    @property
    def unit(self) -> str:
        return "ΔH (nats)" if self.metric == ENTROPY else f"Δ {self.metric}"

    def of(self, runs: Measured, seed: int) -> float:
        high, low = (runs.curve(arm, self.metric, seed) for arm in self.arms)
        return final(high) - final(low)

    def __str__(self) -> str:
        return f"{self.higher} > {self.lower}"


@dataclass(frozen=True)
class Held:
    """Mean entropy of the last third of the run over its target: `target` nats, or `of_initial` times the first step's;
    claimed within 20 % of 1."""

    arm: str
    target: float = 0.0
    of_initial: float = 0.0
    unit = "H / target"
    region = (1 - HELD, 1 + HELD)

    @property
    def arms(self) -> tuple[str, ...]:
        return (self.arm,)

    def level(self, runs: Measured, seed: int) -> float:
        """The entropy to hold, in nats."""
        return self.target or self.of_initial * float(runs.curve(self.arm, ENTROPY, seed)[0])

    def of(self, runs: Measured, seed: int) -> float:
        curve = runs.curve(self.arm, ENTROPY, seed)
        return float(np.nanmean(curve[-len(curve) // 3 :])) / self.level(runs, seed)

    def __str__(self) -> str:
        return f"{self.arm} stays at " + (f"{self.of_initial} H₀" if self.of_initial else f"{self.target} nats")


@dataclass(frozen=True)
class Moves:
    """Final value of a metric minus its first (mean of three steps); claimed positive (`up`) or negative."""

    arm: str
    up: bool
    metric: str = ENTROPY

    @property
    def arms(self) -> tuple[str, ...]:
        return (self.arm,)

    @property
    def unit(self) -> str:
        return "ΔH (nats)" if self.metric == ENTROPY else f"Δ {self.metric}"

    @property
    def region(self) -> Region:
        return (0.0, math.inf) if self.up else (-math.inf, 0.0)

    def of(self, runs: Measured, seed: int) -> float:
        curve = runs.curve(self.arm, self.metric, seed)
        return final(curve) - float(np.nanmean(curve[:FIRST]))

    def __str__(self) -> str:
        name = "entropy" if self.metric == ENTROPY else self.metric
        return f"{self.arm}: {name} {'rises' if self.up else 'falls'}"


@dataclass(frozen=True)
class Scored:
    """A measure of the last evaluation in `higher` minus that in `lower`; claimed positive. `where` is the evaluation
    set, by default the one trained on."""

    higher: str
    lower: str
    measure: str
    where: str | None = None
    region = (0.0, math.inf)

    @property
    def arms(self) -> tuple[str, ...]:
        return self.higher, self.lower

    @property
    def unit(self) -> str:
        return f"Δ {self.measure}"

    def of(self, runs: Measured, seed: int) -> float:
        high, low = (runs.score(arm, self.measure, seed, self.where) for arm in self.arms)
        return float(high[-1] - low[-1])

    def __str__(self) -> str:
        return f"{self.measure}: {self.higher} > {self.lower}"


@dataclass(frozen=True)
class ScoreMoves:
    """A measure of the last evaluation minus that before training; claimed positive (`up`) or negative."""

    arm: str
    measure: str
    up: bool
    where: str | None = None

    @property
    def arms(self) -> tuple[str, ...]:
        return (self.arm,)

    @property
    def unit(self) -> str:
        return f"Δ {self.measure}"

    @property
    def region(self) -> Region:
        return (0.0, math.inf) if self.up else (-math.inf, 0.0)

    def of(self, runs: Measured, seed: int) -> float:
        scores = runs.score(self.arm, self.measure, seed, self.where)
        return float(scores[-1] - scores[0])

    def __str__(self) -> str:
        return f"{self.arm}: {self.measure} {'rises' if self.up else 'falls'}"


@dataclass(frozen=True)
class Together:
    """Spearman's ρ between two metrics over the steps of a run; claimed above `above`, or within ± `within` of zero.
    A leading minus turns a metric's sign."""

    arm: str
    x: str
    y: str
    above: float = 0.0
    within: float = 0.0
    unit = "ρ over steps"

    @property
    def arms(self) -> tuple[str, ...]:
        return (self.arm,)

    @property
    def region(self) -> Region:
        return (-self.within, self.within) if self.within else (self.above, math.inf)

    def of(self, runs: Measured, seed: int) -> float:
        x, y = (_signed(runs, self.arm, metric, seed) for metric in (self.x, self.y))
        return spearman(x, y)

    def __str__(self) -> str:
        return f"{self.arm}: {self.x} and {self.y} " + ("are unrelated" if self.within else "move together")


@dataclass(frozen=True)
class ScoresTogether:
    """Spearman's ρ between two measures over the evaluations of a run; claimed positive."""

    arm: str
    x: str
    y: str
    where: str | None = None
    unit = "ρ over evaluations"
    region = (0.0, math.inf)

    @property
    def arms(self) -> tuple[str, ...]:
        return (self.arm,)

    def of(self, runs: Measured, seed: int) -> float:
        x, y = (runs.score(self.arm, measure, seed, self.where) for measure in (self.x, self.y))
        return spearman(x, y)

    def __str__(self) -> str:
        return f"{self.arm}: {self.x} and {self.y} move together"


@dataclass(frozen=True)
class Across:
    """Spearman's ρ over trained models between final entropy and a measure of the last evaluation; claimed positive or
    negative."""

    models: tuple[str, ...]
    measure: str
    where: str | None = None
    positive: bool = True
    unit = "ρ over models"

    @property
    def arms(self) -> tuple[str, ...]:
        return tuple(self.models)

    @property
    def region(self) -> Region:
        return (0.0, math.inf) if self.positive else (-math.inf, 0.0)

    def of(self, runs: Measured, seed: int) -> float:
        entropy = [final(runs.curve(arm, ENTROPY, seed)) for arm in self.arms]
        scores = [runs.score(arm, self.measure, seed, self.where)[-1] for arm in self.arms]
        return spearman(entropy, scores)

    def __str__(self) -> str:
        return f"entropy and {self.measure} of {len(self.models)} models go {'together' if self.positive else 'apart'}"


@dataclass(frozen=True)
class Alike:
    """|Difference of the final entropies| of two arms over that of a third pair, claimed below `below`: the first two
    are alike measured by how far the second two are apart."""

    first: str
    second: str
    apart: str
    below: float = 0.5
    unit = "|ΔH| / |ΔH|"

    @property
    def arms(self) -> tuple[str, ...]:
        return self.first, self.second, self.apart

    @property
    def region(self) -> Region:
        return (-math.inf, self.below)

    def of(self, runs: Measured, seed: int) -> float:
        first, second, apart = (final(runs.curve(arm, ENTROPY, seed)) for arm in self.arms)
        return abs(first - second) / max(abs(first - apart), 1e-9)

    def __str__(self) -> str:
        return f"{self.first} ≈ {self.second}, unlike {self.apart}"


EFFECTS: dict[str, type] = {
    "order": Order,
    "held": Held,
    "moves": Moves,
    "scored": Scored,
    "score_moves": ScoreMoves,
    "together": Together,
    "scores_together": ScoresTogether,
    "across": Across,
    "alike": Alike,
}
"""Effects by the name a study's definition calls them."""


def _signed(runs: Measured, arm: str, metric: str, seed: int) -> np.ndarray:
    return -runs.curve(arm, metric[1:], seed) if metric.startswith("-") else runs.curve(arm, metric, seed)


def final(curve: np.ndarray) -> float:
    """Mean of the last ten steps, those with nothing to average left out."""
    return float(np.nanmean(curve[-LAST:]))
