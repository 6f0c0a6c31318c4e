"""SENT: prompts from certain to uncertain, and a KL penalty on tokens of low entropy."""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, PrivateAttr
from torch import Tensor

from workbench.methods import statistics
from workbench.methods.base import Bundle, Method, register
from workbench.methods.kl_reference import kl_estimate
from workbench.tables import Rollouts, Table

PAPER = "2512.04359"


@register
class SemanticCurriculum(Method):
    """Trains on the prompts in stages, from low to high semantic entropy of the initial policy's answers.

        stage n of N (steps in equal parts) has the n-th N-quantile of the prompts, sorted by semantic entropy

    arXiv 2512.04359 (S: computed once, before training, by the initial policy; ascending). The released scripts have
    two stages of five epochs each, the second with a fresh optimiser and the first stage's policy as reference: here
    both go on (I). Cut points and the number of samples are not public: equal counts, eight samples, each of the same
    weight (I). Ties keep the order of the training set. One stage is the run without the method.
    """

    name: ClassVar[str] = "semantic_curriculum"
    paper: ClassVar[str] = f"{PAPER}, curriculum"

    stages: int = Field(2, ge=1, description="N; 1 is off")

    def check(self, config) -> None:
        if self.stages > min(config.training.steps, config.task.train_size):
            raise ValueError(
                f"semantic_curriculum.stages ({self.stages}) exceeds training.steps or task.train_size; lower it"
            )

    def needs(self) -> set[str]:
        return {"semantic_entropy"} if self.stages > 1 else set()

    def _stage(self) -> int:
        return (self._now.step - 1) * self.stages // self._now.steps

    def pool(self, prompts: Table, pool: Tensor) -> Tensor:
        if self.stages == 1:
            return pool
        order = prompts.semantic_entropy.argsort(stable=True)
        staged = torch.zeros_like(pool)
        staged[order.tensor_split(self.stages)[self._stage()]] = True
        return pool & staged

    def measures(self) -> dict[str, float]:
        return {"stage": float(self._stage() + 1)}


@register
class SentKl(Method):
    """loss += β_t · KL per token, on tokens of low entropy, more where log-prob and advantage vary together.

        low: H_t ≤ its `low_share`-quantile;   c_t = (log π_t − mean log π)(A_t − mean A), means over the low tokens
        high-covariance: the max(1, ⌊ρ · |low|⌋) low tokens of largest c_t
        paper:     β_high on those, β_low on the other low tokens; PPO's clip stays
        released:  β_high on those, β_low on as many low tokens of smallest c_t, 0 elsewhere; surrogate −r·A, unclipped

    arXiv 2512.04359 (S). Released code: the lowest 80 %, ρ = 2·10⁻⁴, β_high = 0.2, β_low = 0.05, penalty
    |log π − log π_old|, whose gradient at the first update of a rollout is 0. The paper's KL is to the reference policy
    (`anchor` ref, by k3 (I); β a tenth as large suits it (I)) and its loss a mean over sequences, the code's over
    tokens. ρ = 2·10⁻⁴ is a single token of a small mini-batch; 0.01 to 0.02 suits those (I). The code selects per
    micro-batch, and indexes with an integer mask where a boolean one is meant; here the intended selection over the
    whole mini-batch. Entropy, covariance and selection are of the current policy and detached; the gradient flows
    through the KL. Variant paper with `low_entropy_kl` and `high_cov_boost` both false is the run without the method.
    """

    name: ClassVar[str] = "sent_kl"
    paper: ClassVar[str] = f"{PAPER}, token-selective KL"

    variant: Literal["paper", "released"] = Field("paper", description="see the formula")
    anchor: Literal["old", "ref"] = Field("old", description="(I) policy the KL is to; the paper's is ref")
    low_share: float = Field(0.8, gt=0, le=1, description="share of the tokens that counts as low in entropy")
    high_cov_share: float = Field(2e-4, ge=0, le=1, description="ρ: share of the low tokens in the covariance tail")
    beta_high: float = Field(0.2, ge=0, description="β on high-covariance tokens")
    beta_low: float = Field(0.05, ge=0, description="β on the others")
    low_entropy_kl: bool = Field(True, description="ablation: β_low as set, or 0")
    high_cov_boost: bool = Field(True, description="ablation: β_high as set, or β_low")

    _measures: dict[str, float] = PrivateAttr(default_factory=dict)

    def exclusive(self) -> set[str]:
        return {"clip"} if self.variant == "released" else set()

    def needs(self) -> set[str]:
        if not self._acts():
            return set()
        return {"current", "ref_logp"} if self.anchor == "ref" else {"current"}

    def check(self, config) -> None:
        if self._acts() and self.anchor == "old" and config.training.updates_per_rollout < 2:
            raise ValueError(
                "sent_kl.anchor 'old' penalises |log π − log π_old|, which is 0 with training.updates_per_rollout 1; "
                "use at least 2, or anchor 'ref'"
            )

    def clip(self, batch: Rollouts, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        if self.variant == "paper":
            return low, high
        return torch.ones_like(low), torch.full_like(high, math.inf)

    def mark(self, batch: Rollouts) -> dict[str, Tensor]:
        if not self._acts():
            return {}
        tokens = batch.tokens
        entropy = tokens.current_entropy
        threshold = statistics.quantile(entropy, self.low_share, tokens.mask)
        low = tokens.mask & (entropy <= threshold)
        logp, advantage = (x - statistics.mean(x, low).to(x.dtype) for x in (tokens.logp, tokens.advantage))
        covariance = logp * advantage
        every = float(statistics.total(low))
        count = max(1, int(self.high_cov_share * every))
        high = statistics.largest(covariance, count, batch, among=low)
        rest = low if self.variant == "paper" else statistics.largest(-covariance, count, batch, among=low)
        if every:
            likely = tokens.logp.exp()
            self._measures = {"threshold": float(threshold), "high_cov_prob": float(statistics.mean(likely, high))}
        beta_high, beta_low = self._betas()
        beta = torch.zeros_like(tokens.logp).masked_fill(rest, beta_low)
        return {"sent_kl_beta": beta.masked_fill(high, beta_high)}

    def regulariser(self, tokens: Table, logp: Tensor, entropy: Tensor) -> Tensor | None:
        if not self._acts():
            return None
        if self.anchor == "ref":
            return tokens.sent_kl_beta * kl_estimate(logp, tokens.ref_logp, "k3")
        return tokens.sent_kl_beta * kl_estimate(logp, tokens.old_logp, "abs")

    def measures(self) -> dict[str, float]:
        """Entropy up to which a token is low, nats, and mean π of the high-covariance tokens, in the last update."""
        return dict(self._measures)

    def _betas(self) -> tuple[float, float]:
        low = self.beta_low if self.low_entropy_kl else 0.0
        return self.beta_high if self.high_cov_boost else low, low

    def _acts(self) -> bool:
        return any(self._betas())


@register
class Sent(Bundle):
    """grpo + semantic_curriculum + sent_kl + a global KL to the reference policy of weight 0.001.

    arXiv 2512.04359 (S, released scripts: two stages, k3 to the reference on all tokens beside SENT's own KL).
    """

    name: ClassVar[str] = "sent"
    paper: ClassVar[str] = PAPER

    stages: int = Field(2, ge=1, description="stages of the curriculum; 1 is no curriculum")
    variant: Literal["paper", "released"] = Field("paper", description="of the token-selective KL")
    anchor: Literal["old", "ref"] = Field(
        "old", description="(I) policy the token-selective KL is to; the paper's is ref"
    )
    low_entropy_kl: bool = Field(True, description="ablation: β_low as set, or 0")
    high_cov_boost: bool = Field(True, description="ablation: β_high as set, or β_low")
    global_kl: float = Field(0.001, ge=0, description="weight of the KL on all tokens")

    def expand(self) -> list[dict[str, Any]]:
        selective = ("variant", "anchor", "low_entropy_kl", "high_cov_boost")
        return [
            {"name": "grpo"},
            {"name": "semantic_curriculum", "stages": self.stages},
            {"name": "sent_kl", **{key: getattr(self, key) for key in selective}},
            {"name": "kl_reference", "coefficient": self.global_kl},
        ]
