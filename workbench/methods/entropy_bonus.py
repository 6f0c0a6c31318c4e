"""A fixed entropy bonus, of either sign."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from torch import Tensor

from workbench.methods.base import Method, register
from workbench.tables import Table


@register
class EntropyBonus(Method):
    """loss −= coefficient · H per response token; a negative coefficient pushes entropy down.

    H is the exact full-vocabulary entropy of the current policy at the temperature it is trained at, and the gradient
    flows through it. arXiv 2511.05993 Figs 2, 6 (S): 0.001, 0.002 and −0.001.
    """

    name: ClassVar[str] = "entropy_bonus"
    paper: ClassVar[str] = "2511.05993, Figs 2 and 6"

    coefficient: float = Field(0.001, description="weight of the bonus, either sign; 0 is off")

    def regulariser(self, tokens: Table, logp: Tensor, entropy: Tensor) -> Tensor | None:
        return -self.coefficient * entropy if self.coefficient else None
