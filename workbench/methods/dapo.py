"""DAPO: dynamic sampling, the soft penalty on long responses, and the recipe they are part of."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from torch import Tensor

from workbench.methods.base import Bundle, Method, register
from workbench.tables import Rollouts


@register
class DynamicSampling(Method):
    """Keeps prompts that are solved sometimes but not always, and samples further prompts until the batch is full.

    arXiv 2503.14476 eq. 11 (S): 0 < number of correct responses < G. Correctness is the verifier's verdict, before any
    reward shaping. If `max_rounds` rounds do not fill the batch, the update goes without the missing groups: uniform
    groups fill up the stored batch, and are dropped from the update (the scripts stop with an error after ten).
    """

    name: ClassVar[str] = "dynamic_sampling"
    paper: ClassVar[str] = "2503.14476, eq. 11"

    max_rounds: int = Field(10, ge=1, description="sampling rounds of a step at most")
    drop: bool = Field(True, description="leave uniform groups out of the update")

    def rounds(self) -> int:
        return self.max_rounds

    def accept(self, rollouts: Rollouts, accept: Tensor) -> Tensor:
        return accept & ~rollouts.group_is_constant(rollouts.sequences.correct.to(rollouts.sequences.reward.dtype))

    def keep(self, rollouts: Rollouts, keep: Tensor) -> Tensor:
        return self.accept(rollouts, keep) if self.drop else keep


@register
class SoftOverlong(Method):
    """Lowers the reward of responses that come near the longest length allowed.

        0 for length ≤ L − B; −penalty · (length − (L − B)) / B up to L, with L = max_new_tokens and B = buffer · L

    arXiv 2503.14476 eq. 13 (S): L = 20480, B = 4096, so buffer = 0.2, and penalty 1 for rewards of ±1; rewards here are
    0 and 1, so the same proportion is a penalty of 0.5 (I).
    """

    name: ClassVar[str] = "soft_overlong"
    paper: ClassVar[str] = "2503.14476, eq. 13"

    buffer: float = Field(0.2, gt=0, le=1, description="share of the longest length over which the penalty grows")
    penalty: float = Field(0.5, ge=0, description="(I) largest penalty, in units of reward; 0 is off")

    def reward(self, rollouts: Rollouts, reward: Tensor) -> Tensor:
        longest = self._now.max_new_tokens
        start = longest * (1 - self.buffer)
        over = ((rollouts.sequences.length.to(reward.dtype) - start) / (longest - start)).clamp(0, 1)
        return reward - self.penalty * over if self.penalty else reward


@register
class Dapo(Bundle):
    """grpo + clip_higher + dual_clip + dynamic_sampling + soft_overlong; with `objective.denominator` tokens.

    arXiv 2503.14476 (S text and scripts): clip 0.2 / 0.28, dual clip 10, at most ten sampling rounds, token mean, no
    KL.
    """

    name: ClassVar[str] = "dapo"
    paper: ClassVar[str] = "2503.14476"

    clip_high: float = Field(0.28, ge=0, description="ε_high")
    dual_clip: float = Field(10.0, gt=1, description="largest ratio of tokens with A < 0; .inf is off")
    max_rounds: int = Field(10, ge=1, description="sampling rounds of a step at most")
    overlong_buffer: float = Field(0.2, gt=0, le=1, description="share of the longest length that is penalised")
    overlong_penalty: float = Field(0.5, ge=0, description="(I) largest penalty on length, in units of reward")

    def expand(self) -> list[dict]:
        return [
            {"name": "grpo"},
            {"name": "clip_higher", "high": self.clip_high},
            {"name": "dual_clip", "c": self.dual_clip},
            {"name": "dynamic_sampling", "max_rounds": self.max_rounds},
            {"name": "soft_overlong", "buffer": self.overlong_buffer, "penalty": self.overlong_penalty},
        ]
