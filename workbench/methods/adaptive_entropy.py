"""Adaptive entropy regularisation: a bonus that is on only while entropy is at or below its target."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

from pydantic import Field, PrivateAttr
from torch import Tensor

from workbench.methods import statistics
from workbench.methods.base import Method, register
from workbench.tables import Rollouts, Table


@register
class AdaptiveEntropy(Method):
    """loss −= α_k · H per response token, with a coefficient that grows while entropy is below its target.

        α_k = c_k if H_k ≤ δ else 0;   c_{k+1} = c_k + Δ if H_k < δ else c_k − Δ

    Skywork-OR1 (arXiv 2505.22312, S: c_0 = 0, Δ = 0.005, δ = 0.2), "Ada-Ent-Reg" in 2511.05993 with δ = 0.2 and δ = the
    entropy before training (Fig. 1). H_k is the rollout batch's entropy before the step's updates, α_k is constant
    within the step; both are detached, the gradient flows through H. The gate makes δ a lower bound, not a set point.
    The sources mention no floor of c: above the target it falls without end, and after a long stay there the bonus
    comes back late, or negative; `floor` bounds it.
    """

    name: ClassVar[str] = "adaptive_entropy"
    paper: ClassVar[str] = "2505.22312; 2511.05993, Figs 1 and 5"

    target: float | Literal["initial"] = Field(0.2, description="δ in nats, or 'initial': the first step's entropy")
    delta: float = Field(0.005, ge=0, description="Δ: change of the coefficient per rollout step")
    initial: float = Field(0.0, description="c_0")
    floor: float = Field(-math.inf, le=0, description="smallest c; -.inf is none, as in the sources")

    _coefficient: float = PrivateAttr(0.0)
    _applied: float = PrivateAttr(0.0)
    _target: float | None = PrivateAttr(None)

    def model_post_init(self, _context) -> None:
        self._coefficient = self.initial
        self._target = None if self.target == "initial" else self.target

    def check(self, config) -> None:
        if self.target != "initial" and self.target < 0:
            raise ValueError(f"adaptive_entropy.target is {self.target}, but entropy is never below 0; raise it")

    def needs(self) -> set[str]:
        return {"old_logp"}

    def look(self, rollouts: Rollouts) -> None:
        entropy = float(statistics.mean(rollouts.tokens.entropy))
        if self._target is None:
            self._target = entropy
        self._applied = self._coefficient if entropy <= self._target else 0.0
        change = self.delta if entropy < self._target else -self.delta
        self._coefficient = max(self.floor, self._coefficient + change)

    def regulariser(self, tokens: Table, logp: Tensor, entropy: Tensor) -> Tensor | None:
        return -self._applied * entropy if self._applied else None

    def measures(self) -> dict[str, float]:
        return {"coefficient": self._applied, "next_coefficient": self._coefficient, "target": self._target or 0.0}
