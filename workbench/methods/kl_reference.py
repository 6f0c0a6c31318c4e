"""KL penalty to the initial policy, three estimators."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor

from workbench.methods.base import Method, register
from workbench.tables import Table


def kl_estimate(logp: Tensor, other: Tensor, estimator: str) -> Tensor:
    """Schulman's estimates of KL(π‖π_other) per token sampled from π [n], with d = other − logp:

    k1 = −d, unbiased; k2 = d²/2, biased, its gradient is that of the KL when π samples; k3 = e^d − d − 1, unbiased and
    never negative. `abs` = |d|, the penalty of KL-Cov's authors. Differentiable in `logp`.
    """
    d = other - logp
    if estimator == "k1":
        return -d
    if estimator == "k2":
        return 0.5 * d.square()
    if estimator == "abs":
        return d.abs()
    return d.exp() - d - 1


@register
class KlReference(Method):
    """loss += coefficient · KL_est(π‖π_ref) per token, π_ref the policy the run started from.

    k3 is GRPO's (arXiv 2402.03300 eq. 4), weight 0.001–0.04 (K). Used as a loss, the gradient of k1 has expectation 0
    on-policy: it regularises nothing, and is here to show that. π_ref is a constant.
    """

    name: ClassVar[str] = "kl_reference"
    paper: ClassVar[str] = "2402.03300, eq. 4"

    coefficient: float = Field(0.001, ge=0, description="weight of the penalty; 0 is off")
    estimator: Literal["k1", "k2", "k3"] = Field("k3", description="estimator of the KL per token")

    def needs(self) -> set[str]:
        return {"ref_logp"} if self.coefficient else set()

    def cautions(self, config) -> list[str]:
        if self.estimator != "k1" or not self.coefficient:
            return []
        return ["kl_reference.estimator k1 as a loss has zero expected gradient on-policy; use k2 or k3"]

    def regulariser(self, tokens: Table, logp: Tensor, entropy: Tensor) -> Tensor | None:
        if not self.coefficient:
            return None
        return self.coefficient * kl_estimate(logp, tokens.ref_logp, self.estimator)
