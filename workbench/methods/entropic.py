"""EntroPIC: a PI controller holds entropy by scaling what likely tokens gain and lose."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field, PrivateAttr
from torch import Tensor

from workbench.methods import statistics
from workbench.methods.base import Method, register
from workbench.tables import Rollouts, Table


@register
class Entropic(Method):
    """loss += α · mean over tokens with π > τ of (−r·|A|), so that likely tokens gain 1 + α and lose 1 − α times.

        e = H − H*;   α = clip(K_p·e + K_i·S, −1, 1);   S ← S + e, after α is used

    arXiv 2511.15248 (S, released code): τ = 0.95, K_p = 1, K_i = 0.01, the surrogate's own clip stays on, the extra
    term has the unclipped ratio r. H is the entropy of the mini-batch about to be trained on, of the current policy at
    its temperature; one α and one S per optimiser update over the whole mini-batch on all devices (I: the code has one
    per micro-batch and rank, the same in expectation). α, S, the set and |A| are detached, the gradient flows through
    r. Entropy too low gives e < 0, α < 0, weaker rewards, and entropy rises. The mean is over the likely tokens alone,
    so its weight in the loss is N/N_likely ≥ 1 times that of the surrogate, for `objective.denominator` tokens.

    The authors' published curves fit other gains than their script's (S-fit): K_p ≈ 10 and K_i ≈ 0 on-policy at target
    0.15, K_p ≈ 5 and K_i ≈ 0.03 at T = 1 and target 0.5. Entropy scales differ between models: the script's K_p·H* is
    0.1, the curves' 1 to 2.5. On-policy P or PI converges, off-policy only PI does (S). Both gains 0 is the run without
    the method; `integral` 0 is P control. There is no anti-windup, as in the code. Off-policy settings to start from
    (I): K_p 1 to 10 with K_i = 0 for P, K_i = K_p/100 for PI. The code's surrogate has a dual clip at 3: add dual_clip.
    """

    name: ClassVar[str] = "entropic"
    paper: ClassVar[str] = "2511.15248, PI controller"

    target: float = Field(0.1, ge=0, description="H*: entropy to hold, nats, at the training temperature")
    proportional: float = Field(1.0, ge=0, description="K_p, per nat")
    integral: float = Field(0.01, ge=0, description="K_i, per nat and optimiser update")
    threshold: float = Field(0.95, ge=0, lt=1, description="τ: tokens likelier than this under the current policy")

    _sum: float = PrivateAttr(0.0)
    _measures: dict[str, float] = PrivateAttr(default_factory=dict)

    def needs(self) -> set[str]:
        return {"current"} if self._acts() else set()

    def cautions(self, config) -> list[str]:
        if config.objective.denominator == "tokens":
            return []
        return [f"entropic's term is a mean over tokens; objective.denominator is '{config.objective.denominator}'"]

    def mark(self, batch: Rollouts) -> dict[str, Tensor]:
        if not self._acts():
            return {}
        tokens = batch.tokens
        every = float(statistics.total(tokens.mask))
        if not every:  # no entropy to steer by
            return {"entropic_scale": torch.zeros_like(tokens.logp)}
        error = float(statistics.mean(tokens.current_entropy, tokens.mask)) - self.target
        wanted = self.proportional * error + self.integral * self._sum
        alpha = min(1.0, max(-1.0, wanted))
        likely = tokens.mask & (tokens.logp.exp() > self.threshold)
        count = float(statistics.total(likely))
        self._measures = {
            "alpha": alpha,
            "error": error,
            "proportional": self.proportional * error,
            "integral": self.integral * self._sum,
            "saturated": float(alpha != wanted),
            "likely_fraction": count / every,
        }
        self._sum += error
        return {"entropic_scale": torch.where(likely, alpha * every / max(count, 1.0), torch.zeros_like(tokens.logp))}

    def regulariser(self, tokens: Table, logp: Tensor, entropy: Tensor) -> Tensor | None:
        if not self._acts():
            return None
        return -tokens.entropic_scale * (logp - tokens.old_logp).exp() * tokens.advantage.abs()

    def measures(self) -> dict[str, float]:
        """α, its parts, and the share of likely tokens, of the step's last update."""
        return dict(self._measures)

    def _acts(self) -> bool:
        return bool(self.proportional or self.integral)
