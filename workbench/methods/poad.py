"""Token advantages from a scalar critic, without a discount inside the response (POAD), and with it."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, PrivateAttr
from torch import Tensor

from workbench.methods import statistics
from workbench.methods.base import Method, register
from workbench.methods.critics import discounted_sums, next_values, refuse_shaping_before
from workbench.methods.terms import CriticConfig
from workbench.tables import Rollouts


@register
class Poad(Method):
    """Action-decomposed GAE: a critic's values give each token its credit, undiscounted inside the response.

        poad:        δ_t = V_{t+1} − V_t,    A_t = δ_t + λ·A_{t+1}
        naive_token: δ_t = γ·V_{t+1} − V_t,  A_t = δ_t + γλ·A_{t+1}
        both:        δ_n = R − V_n at the last token, A_{n+1} = 0

    arXiv 2405.15821 (S, text and code): γ belongs between actions, i.e. environment steps. Discounting every token too
    (the control, called NTPO in the code) shrinks the value of token t by γ^(n−t), so that credit depends on length. A
    task here is one action, which leaves `poad` without γ; a truncated response ends like any other, with no value
    beyond its last token (I). V_t = V(s, w_<t) is given by a second LM that starts as the policy with a value head of
    zeros (I); it regresses A_t + V_t (S), Huber, mean over the mini-batch's tokens, once per update of the policy.
    Values, advantages and targets are constants of the rollout step. The surrogate is the run's, by default PPO's clip.

    The authors' code differs: it normalises over the mini-batch, here over the rollout batch; clips the change of the
    value to 0.2; stops a policy update at KL 0.02; adds an entropy bonus of 0.01 (method `entropy_bonus`).
    The critic's passes about double the work of a step.
    """

    name: ClassVar[str] = "poad"
    paper: ClassVar[str] = "2405.15821, action-decomposed GAE"

    variant: Literal["poad", "naive_token"] = Field("poad", description="whether γ acts between tokens")
    gae_lambda: float = Field(0.95, ge=0, le=1, description="λ of GAE: 1 is reward − value, 0 looks one token ahead")
    gamma: float = Field(0.95, gt=0, le=1, description="naive_token: γ, discount per token")
    normalise: bool = Field(True, description="advantages to mean 0 and spread 1 over the rollout batch")
    critic_learning_rate: float = Field(1e-3, gt=0, lt=1, description="rate of the critic's AdamW (I)")
    huber: float = Field(10.0, gt=0, description="δ of the critic's Huber loss, in units of reward")
    critic_max_grad_norm: float = Field(0.5, gt=0, description="the critic's gradient is scaled down to this L2 norm")

    _seen: dict[str, float] = PrivateAttr(default_factory=dict)

    def needs(self) -> set[str]:
        return {"values"}

    def critic(self) -> CriticConfig:
        return CriticConfig("value", self.critic_learning_rate, self.critic_max_grad_norm, self.huber)

    def check(self, config) -> None:
        refuse_shaping_before(self.name, config)

    def cautions(self, config) -> list[str]:
        default = type(self).model_fields["gamma"].default
        if self.variant == "poad" and self.gamma != default:
            return ["poad.gamma acts between the tokens of variant 'naive_token' only: a task here is a single action"]
        if self.variant == "naive_token" and self.gamma == 1:
            return ["poad.variant 'naive_token' with poad.gamma 1 is variant 'poad'"]
        return []

    def baseline(self, rollouts: Rollouts) -> Tensor:
        """The reward itself: what is subtracted is a value per token."""
        return rollouts.sequences.reward

    def advantage(self, rollouts: Rollouts, advantage: Tensor) -> Tensor:
        raw, value = self._gae(rollouts), rollouts.tokens.value
        earned = rollouts.broadcast_to_tokens(rollouts.sequences.reward)
        centre, spread, rewards = statistics.mean(raw), statistics.std(raw), statistics.std(earned)
        left = statistics.std(earned - value)
        self._seen = {
            "root_value": float(statistics.mean(value, rollouts.tokens.position == 0)),
            "advantage_std": float(spread),
            # Share of the rewards' variance over tokens that the critic foresees; 0 when there is none to foresee.
            "explained_variance": float(1 - (left / rewards).square()) if rewards > 0 else 0.0,
        }
        return ((raw - centre) / (spread + 1e-8)).to(raw.dtype) if self.normalise else raw

    def critic_target(self, rollouts: Rollouts) -> Tensor:
        return self._gae(rollouts) + rollouts.tokens.value

    def measures(self) -> dict[str, float]:
        return self._seen

    def _gae(self, rollouts: Rollouts) -> Tensor:
        value, gamma = rollouts.tokens.value, 1.0 if self.variant == "poad" else self.gamma
        ahead = next_values(rollouts, gamma * value, last=rollouts.sequences.reward)
        return discounted_sums(rollouts, ahead - value, gamma * self.gae_lambda)
