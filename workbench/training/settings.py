"""The few settings the what-if lab moves, and the config they amount to beside a run's own."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from workbench.config import RunConfig
from workbench.training.whatif import overrides

BONUSES = ("entropy_bonus", "adaptive_entropy", "aer", "entropic")
"""Methods whose regulariser acts on entropy; an entropy coefficient stands in for them."""


@dataclass(frozen=True)
class Selection:
    """A selection of tokens the lab offers: the method, and the parameter its slider moves."""

    label: str
    method: str
    parameter: str
    low: float
    high: float
    value: float


SELECTIONS = {
    choice.method: choice
    for choice in (
        Selection("80/20: train on the tokens of highest entropy", "high_entropy_mask", "fraction", 0.05, 1.0, 0.2),
        Selection("Clip-Cov: no gradient for random high-covariance tokens", "clip_cov", "fraction", 0.0, 0.1, 0.002),
        Selection("KL-Cov: a penalty on high-covariance tokens", "kl_cov", "fraction", 0.0, 0.1, 0.002),
        Selection("Clip_B: without punished tokens of low S", "clip_b", "mu", 0.25, 4.0, 1.0),
        Selection("Clip_V: without punished tokens of high E[S] − S", "clip_v", "mu", 0.5, 9.0, 4.0),
    )
}
BASELINES = ("grpo", "dr_grpo", "rloo", "reinforce")
AS_TRAINED, NONE = "as trained", "none"


@dataclass(frozen=True)
class Setting:
    """What differs from the run; None or "as trained" leaves it as it was.

    clip_low, clip_high: ε_low and ε_high for all tokens. positive_weight: λ, the weight of tokens with A > 0.
    entropy_coefficient: of the entropy bonus. selection: a method of `SELECTIONS`, or "none"; selection_value: its
    parameter. baseline: a method of `BASELINES`.
    """

    clip_low: float | None = None
    clip_high: float | None = None
    positive_weight: float | None = None
    entropy_coefficient: float | None = None
    selection: str = AS_TRAINED
    selection_value: float | None = None
    baseline: str = AS_TRAINED

    def config(self, run: RunConfig) -> RunConfig:
        """`run` with the setting applied. Raises `ValueError` if the combination cannot be trained."""
        methods, objective = list(run.methods), {}
        if self.clip_low is not None or self.clip_high is not None:
            methods = [m for m in methods if not overrides(m["name"], "clip") or m["name"] == "kl_cov"]
            bounds = {"clip_low": self.clip_low, "clip_high": self.clip_high}
            objective = {name: value for name, value in bounds.items() if value is not None}
        if self.positive_weight is not None:
            constant = {"name": "pos_adv_reweight", "schedule": "constant", "initial": self.positive_weight}
            methods = _instead(methods, ("pos_adv_reweight",), constant)
        if self.entropy_coefficient is not None:
            bonus = {"name": "entropy_bonus", "coefficient": self.entropy_coefficient}
            methods = _instead(methods, BONUSES, bonus)
        if self.selection != AS_TRAINED:
            methods = _instead(methods, tuple(SELECTIONS), self._selected())
        if self.baseline != AS_TRAINED:
            methods = [{"name": self.baseline} if overrides(m["name"], "baseline") else m for m in methods]
        content = run.model_dump(mode="python") | {"methods": methods}
        content["objective"] = content["objective"] | objective
        return RunConfig(**content)

    def describe(self) -> str:
        """The setting in words, "as trained" when it changes nothing."""
        given = {f.name: getattr(self, f.name) for f in fields(self)}
        words = [f"{k.replace('_', ' ')} {v:g}" if isinstance(v, float) else f"{k} {v}"
                 for k, v in given.items() if v not in (None, AS_TRAINED)]  # fmt: skip
        return ", ".join(words) or AS_TRAINED

    def _selected(self) -> dict[str, Any] | None:
        if self.selection == NONE:
            return None
        choice = SELECTIONS[self.selection]
        value = choice.value if self.selection_value is None else self.selection_value
        entry: dict[str, Any] = {"name": choice.method, choice.parameter: value}
        if choice.method == "clip_v":  # the published bound removes no token of a small mini-batch
            entry["max_fraction"] = 0.02
        return entry


def _instead(methods: list[dict], names: tuple[str, ...], entry: dict[str, Any] | None) -> list[dict]:
    """`entry` in the place of the methods called `names`, at the end if there was none."""
    kept = [m for m in methods if m["name"] not in names]
    return [*kept, entry] if entry else kept
