"""Entropy-regularised policy optimisation per token, with a soft Q-function over the vocabulary (ETPO)."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, PrivateAttr
from torch import Tensor

from workbench.config import METHODS
from workbench.methods import statistics
from workbench.methods.base import Method, register
from workbench.methods.critics import next_values, refuse_shaping_before
from workbench.methods.ppo import ppo_clip
from workbench.methods.terms import CriticConfig
from workbench.tables import Rollouts, Table

READ_BY_PPO = ("advantage", "clip", "ratio")
"""Hooks whose results only a surrogate of advantages and ratios reads."""
TYPICAL_LENGTH = 20
"""Response tokens of the bundled tasks; what values have to travel where a config sets no bound of its own."""


@register
class Etpo(Method):
    """Maximise E[R] − β·KL(π‖ρ) per response by soft Q-learning on its tokens; ρ is the policy the run started from.

        V(s, w_<t) = E_{v~π}[Q̄_v] − β·KL(π‖ρ)    exact over the vocabulary, Q̄ the critic's slow copy
        y_t        = V(s, w_≤t), no discount      for all tokens but the last;  y_n = R
        critic     = mean Huber(y_t − Q_t)        of the sampled token;  Q̄ ← polyak·Q̄ + (1 − polyak)·Q
        policy     = Σ_v π_v·(β(log π_v − log ρ_v) − Q_v)    "expectation": exact, no sampled token, no ratio
                   = ppo_clip on A_t + β·KL(π‖ρ)              "sampled" (I): A_t = Q_t − E_π[Q], for a loop with ratios

    arXiv 2402.06700 (S), for a task of one turn, in which γ has nothing to act on (I). The fixed point is
    π ∝ ρ·exp(Q/β), where V at the root is β·log E_ρ[exp(R/β)] whatever the length; with ρ uniform it is maximum-entropy
    RL. V, y and A_t are constants of the rollout step; Q in the policy's loss is detached and the one before the
    critic's update (S, code). Q is a second LM's output layer, which starts as the policy with that layer at zero
    (I): Q = 0 keeps π at ρ until rewards are seen. β and Q are in units of reward, KL in nats. The advantage
    column holds A_t in both variants. With several updates per rollout, the targets are still those of the rollout (I).

    The released code departs from the paper, and from this: (a) its policy loss is the mean over the vocabulary of
    β·log π_v − Q_v without the weights π_v, whose gradient does not depend on Q; (b) ρ is in the targets only; (c) the
    KL inside an action is that of the next environment step at the same place; (d) its epochs are not used. It uses
    Lion at 1e-6 where this uses AdamW.
    Two things to know before a run. A value moves back one token per 1/(1 − polyak) updates or so, 200 for the paper's:
    on short runs the root never hears of the reward. And only sampled tokens are regressed, while both variants read Q
    of all tokens: until Q is right for them the policy follows its errors, so that reward can fall at first.
    Critic and reference are passes over their own vocabulary layers: scoring takes four forward passes, an update adds
    the reference's, the critic's twice and its backward.
    """

    name: ClassVar[str] = "etpo"
    paper: ClassVar[str] = "2402.06700, per-token soft Bellman update"

    variant: Literal["expectation", "sampled"] = Field("expectation", description="how the policy improves")
    beta: float = Field(0.01, gt=0, description="β, reward per nat of KL to the initial policy")
    polyak: float = Field(0.995, ge=0, lt=1, description="what the critic's slow copy keeps of itself per update")
    critic_learning_rate: float = Field(1e-3, gt=0, lt=1, description="rate of the critic's AdamW (I)")
    huber: float = Field(10.0, gt=0, description="δ of the critic's Huber loss, in units of reward")
    critic_max_grad_norm: float = Field(10.0, gt=0, description="the critic's gradient is scaled down to this L2 norm")

    _seen: dict[str, float] = PrivateAttr(default_factory=dict)

    def needs(self) -> set[str]:
        return {"soft_values"}

    def critic(self) -> CriticConfig:
        return CriticConfig("vocabulary", self.critic_learning_rate, self.critic_max_grad_norm, self.huber, self.polyak)

    def check(self, config) -> None:
        refuse_shaping_before(self.name, config)

    def cautions(self, config) -> list[str]:
        said = []
        if config.objective.denominator != "tokens":
            said.append("etpo takes the mean over tokens; objective.denominator is something else")
        if any(entry["name"] == "kl_reference" and entry["coefficient"] for entry in config.methods):
            said.append("etpo has the exact KL to the initial policy in its objective; kl_reference adds it again")
        updates = config.training.steps * config.training.updates_per_rollout
        reach = updates * (1 - self.polyak)
        if reach < (config.rollout.max_new_tokens or TYPICAL_LENGTH):
            said.append(
                f"etpo.polyak {self.polyak} lets values travel back about {reach:.0f} tokens in {updates} updates; "
                "lower it, or train longer"
            )
        if self.variant == "sampled":
            return said
        if config.training.updates_per_rollout > 1:
            said.append(
                "etpo.variant 'expectation' does not correct for the policy having moved since it sampled; "
                "the paper makes one update per rollout, training.updates_per_rollout more"
            )
        inert = [e["name"] for e in config.methods if e["name"] != self.name and _acts_through_ppo(e["name"])]
        if inert:
            said.append(f"etpo.variant 'expectation' reads no advantage, ratio or bound: {inert} change nothing")
        return said

    def baseline(self, rollouts: Rollouts) -> Tensor:
        """The reward itself, the response's return: what is subtracted is a value per token."""
        return rollouts.sequences.reward

    def advantage(self, rollouts: Rollouts, advantage: Tensor) -> Tensor:
        tokens = rollouts.tokens
        root = tokens.position == 0
        self._seen = {
            "kl": float(statistics.mean(tokens.exact_kl)),
            "root_value": float(statistics.mean(self.soft_value(tokens), root)),
            "advantage_std": float(statistics.std(tokens.q - tokens.expected_q)),
            "bellman_error": float(statistics.mean((self.critic_target(rollouts) - tokens.q).square()).sqrt()),
        }
        return tokens.q - tokens.expected_q

    def soft_value(self, tokens: Table) -> Tensor:
        """V(s, w_<t) of the prefix before each token [N]."""
        return tokens.target_expected_q - self.beta * tokens.exact_kl

    def critic_target(self, rollouts: Rollouts) -> Tensor:
        return next_values(rollouts, self.soft_value(rollouts.tokens), last=rollouts.sequences.reward)

    def surrogate(self, tokens: Table, ratio: Tensor, logp: Tensor) -> Tensor:
        penalty = self.beta * tokens.current_kl
        gain = -tokens.current_expected_q if self.variant == "expectation" else ppo_clip(tokens, ratio)
        return gain + penalty

    def measures(self) -> dict[str, float]:
        return self._seen


def _acts_through_ppo(name: str) -> bool:
    return any(getattr(METHODS[name], hook) is not getattr(Method, hook) for hook in READ_BY_PPO)
