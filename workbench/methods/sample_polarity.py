"""Training on incorrect responses alone, on correct ones alone, or on one after the other."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field, PrivateAttr
from torch import Tensor

from workbench.methods import statistics
from workbench.methods.base import Method, register
from workbench.tables import Rollouts

SALT = 12


@register
class SamplePolarity(Method):
    """Drops the correct or the incorrect responses from the update, after advantages of the full group.

        negative: incorrect responses stay;  positive: correct ones;  both: all
        x_then_y: x in the steps ≤ switch · steps, y after

    arXiv 2506.04913 (S): by the verifier's verdict, not by the sign of A, so responses of all-wrong groups stay with
    A = 0 and count in the denominator. `negative_then_positive` is named there without a rule for the switch (I: half
    the run). A response of the dropped class stays with probability `reserve_ratio` (S: 0 in the scripts, 0.25 by
    default; their minimal number is left out). With `denominator` kept, dropped responses leave the loss, its
    denominator and its regularisers, as published, and the effective step size varies with the share kept; with full
    (I) they stay in both, with weight 0. When nothing is left there is no update. `both` is the run without the
    method.
    """

    name: ClassVar[str] = "sample_polarity"
    paper: ClassVar[str] = "2506.04913, positive and negative samples"

    train: Literal[
        "both",
        "negative",
        "positive",
        "negative_then_positive",
        "positive_then_negative",
        "negative_then_both",
    ] = Field("negative", description="which responses are trained on")
    switch: float = Field(0.5, ge=0, le=1, description="(I) x_then_y: share of the run after which y begins")
    reserve_ratio: float = Field(0.0, ge=0, le=1, description="share of the dropped class that stays")
    denominator: Literal["kept", "full"] = Field("kept", description="whether dropped responses count in it")

    _kept: float = PrivateAttr(1.0)

    def check(self, config) -> None:
        if "_then_" in self.train and config.training.steps < 2:
            raise ValueError(
                f"sample_polarity.train '{self.train}' changes within the run, which has one step; raise training.steps"
            )

    def phase(self) -> str:
        """`both`, `negative` or `positive`, at this step."""
        first, _, second = self.train.partition("_then_")
        return second if second and self._now.step > self.switch * self._now.steps else first

    def stays(self, rollouts: Rollouts) -> Tensor:
        """Mask [S]; the same for a response in a batch and in any part of it."""
        phase, correct = self.phase(), rollouts.sequences.correct
        if phase == "both":
            return torch.ones_like(correct)
        stays = correct if phase == "positive" else ~correct
        lot = statistics.uniform(statistics.sequence_key(rollouts), self._now.seed, self._now.step, SALT)
        return stays | (lot < self.reserve_ratio)

    def keep(self, rollouts: Rollouts, keep: Tensor) -> Tensor:
        stays = self.stays(rollouts)
        self._kept = float(statistics.mean(stays))
        return keep & stays if self.denominator == "kept" else keep

    def weight(self, batch: Rollouts, weight: Tensor) -> Tensor:
        if self.denominator == "kept":
            return weight
        return weight.masked_fill(~batch.broadcast_to_tokens(self.stays(batch)), 0.0)

    def measures(self) -> dict[str, float]:
        return {"kept_fraction": self._kept}
