"""Token advantages from a scalar critic, without a discount inside the response (POAD), and with it."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, PrivateAttr
from torch import Tensor

from workbench.methods import statistics
from workbench.methods.base import Method, register
from workbench.methods.critics import CriticConfig, discounted_sums, next_values, refuse_shaping_before
from workbench.tables import Rollouts


@register
class Poad(Method):
    """Action-decomposed GAE: a critic's values give each token its credit, undiscounted inside the response.

        poad:        δ_t = V_{t+1} − V_t,    A_t = δ_t + λ·A_{t+1}
        naive_token: δ_t = γ·V_{t+1} − V_t,  A_t = δ_t + γλ·A_{t+1}
        both:        δ_n = R − V_n at the last token, A_{n+1} = 0

    arXiv 2405.15821 (S): γ belongs between actions, i.e. environment steps; discounting every token as well (the
    control, naive_token) shrinks the value of token t by γ^(n−t) and so makes credit depend on how long a response is.
    A task here has one action, so that `poad` has no γ left, and a truncated response ends like any other: no value is
    added beyond its last token (I). V_t = V(s, w_<t) is the critic's, a second LM that starts as the policy with a zero
    value head; it is trained on A_t + V_t (K), Huber, mean over the mini-batch's tokens, once after each update of the
    policy. The surrogate is the run's, by default PPO's clip; the authors' value clip is not offered. Values, targets
    and advantages are constants of the rollout step. The critic doubles a step's work and is checkpointed.
    """

    name: ClassVar[str] = "poad"
    paper: ClassVar[str] = "2405.15821, action-decomposed GAE"

    variant: Literal["poad", "naive_token"] = Field("poad", description="whether γ acts between tokens")
    gae_lambda: float = Field(0.95, ge=0, le=1, description="λ: 1 is the return minus the value, 0 one token ahead (K)")
    gamma: float = Field(0.99, gt=0, le=1, description="naive_token: γ, the discount per token")
    normalise: bool = Field(True, description="advantages to mean 0 and spread 1 over the rollout batch (K)")
    critic_learning_rate: float = Field(1e-3, gt=0, lt=1, description="rate of the critic's AdamW (I)")
    huber: float = Field(10.0, gt=0, description="δ of the critic's Huber loss, in units of reward")
    max_grad_norm: float = Field(10.0, gt=0, description="the critic's gradient is scaled down to this L2 norm")

    _seen: dict[str, float] = PrivateAttr(default_factory=dict)

    def needs(self) -> set[str]:
        return {"values"}

    def critic(self) -> CriticConfig:
        return CriticConfig("value", self.critic_learning_rate, self.max_grad_norm, self.huber)

    def check(self, config) -> None:
        refuse_shaping_before(self.name, config)

    def cautions(self, config) -> list[str]:
        default = type(self).model_fields["gamma"].default
        if self.variant == "poad" and self.gamma != default:
            return ["poad.gamma acts between tokens of variant 'naive_token' only: a task here is a single action"]
        if self.variant == "naive_token" and self.gamma == 1:
            return ["poad.variant 'naive_token' with poad.gamma 1 is variant 'poad'"]
        return []

    def baseline(self, rollouts: Rollouts) -> Tensor:
        """The reward itself: what is subtracted is a value per token."""
        return rollouts.sequences.reward

    def advantage(self, rollouts: Rollouts, advantage: Tensor) -> Tensor:
        raw, value = self._gae(rollouts), rollouts.tokens.value
        first = rollouts.tokens.position == 0
        residual = self._target(rollouts) - value
        self._seen = {
            "root_value": float(statistics.mean(value, first)),
            "advantage_std": float(statistics.std(raw)),
            "value_error": float(statistics.mean(residual.double().square()).sqrt()),
        }
        if not self.normalise:
            return raw
        spread = statistics.std(raw).clamp(min=1e-8)
        return ((raw - statistics.mean(raw)) / spread).to(raw.dtype)

    def critic_target(self, rollouts: Rollouts) -> Tensor:
        return self._target(rollouts)

    def measures(self) -> dict[str, float]:
        return self._seen

    def _gae(self, rollouts: Rollouts) -> Tensor:
        value, gamma = rollouts.tokens.value, 1.0 if self.variant == "poad" else self.gamma
        # The last token's own "next value" is the reward, which no variant discounts.
        ahead = next_values(rollouts, gamma * value, rollouts.sequences.reward)
        return discounted_sums(rollouts, ahead - value, gamma * self.gae_lambda)

    def _target(self, rollouts: Rollouts) -> Tensor:
        return self._gae(rollouts) + rollouts.tokens.value
