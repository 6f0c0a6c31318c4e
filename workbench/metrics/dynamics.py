"""First-order predictors of a step's entropy change, from the rollout batch before its updates.

They share one limit: they are derived for a plain gradient step on the logits of the very tokens that were sampled. A
real update is AdamW on shared weights; arXiv 2511.05993 finds |Spearman ρ| ≤ 0.21 between the covariances and the
measured change (S).
"""

from __future__ import annotations

from torch import Tensor

from workbench.metrics.partitions import SIGNS, discriminator, discriminator_gap, sign_class
from workbench.metrics.registry import Metric, Registry, covariance, masked_mean, shares_by_class
from workbench.tables import Rollouts

DYNAMICS = Registry()

FIRST_ORDER = (
    "as a forecast: weights are shared, AdamW rescales every gradient, and clipping and later updates are left out; "
    "compare with change/entropy"
)


@DYNAMICS.measures(
    Metric("logp/mean", "nats", "mean log-prob of the sampled tokens; −this estimates entropy/mean without bias",
           "all response tokens", "as entropy for injected responses, or with top_p < 1: they are not the policy's"),
)  # fmt: skip
def _logp(r: Rollouts) -> dict[str, Tensor]:
    return {"logp/mean": masked_mean(r.tokens.rollout_logp)} if "rollout_logp" in r.tokens else {}


@DYNAMICS.measures(
    Metric("covariance/logp_advantage", "nats", "Cov(log π_old, A); predicts ΔH ≈ −η · this for a natural policy "
           "gradient (arXiv 2505.22617)", "all response tokens", FIRST_ORDER),
    Metric("covariance/logp_weighted", "nats", "Cov(log π_old, π_old · A); predicts ΔH ≈ −η · this for a policy "
           "gradient (arXiv 2505.22617)", "all response tokens", FIRST_ORDER),
)  # fmt: skip
def _covariances(r: Rollouts) -> dict[str, Tensor]:
    logp, advantage = r.tokens.old_logp.double(), r.tokens.advantage.double()
    return {
        "covariance/logp_advantage": covariance(logp, advantage),
        "covariance/logp_weighted": covariance(logp, logp.exp() * advantage),
    }


@DYNAMICS.measures(
    Metric("discriminator/mean", "nats", "mean of S = π_old (H + log π_old) (arXiv 2602.03392)", "all response tokens",
           "as a direction of change: on policy the step follows S − E[S], whose mean is about 0"),
    Metric("discriminator/gap", "nats", "mean of S − E[S], E[S] = H Σπ² + Σπ² log π; 0 in expectation on policy",
           "all response tokens", "off 0 for injected responses and with top_p < 1: no samples of the policy"),
    Metric("discriminator/push", "nats per unit step", "mean of −A (S − E[S]): first-order ΔH of a step α = A on each "
           "token's own logits (arXiv 2602.03392, Theorem 3.3)", "all response tokens", FIRST_ORDER),
    Metric("discriminator/push_positive", "nats per unit step", "Σ over tokens with A > 0 of −A (S − E[S]) / N; with "
           "push_negative it adds up to discriminator/push", "tokens with A > 0, over all N", FIRST_ORDER),
    Metric("discriminator/push_negative", "nats per unit step", "Σ over tokens with A < 0 of −A (S − E[S]) / N",
           "tokens with A < 0, over all N", FIRST_ORDER),
)  # fmt: skip
def _discriminator(r: Rollouts) -> dict[str, Tensor]:
    if "expected_discriminator" not in r.tokens:
        return {}
    gap = discriminator_gap(r.tokens)
    push = -r.tokens.advantage * gap
    by_sign = dict(zip(SIGNS, shares_by_class(push, sign_class(r.tokens), len(SIGNS)), strict=True))
    return {
        "discriminator/mean": masked_mean(discriminator(r.tokens)),
        "discriminator/gap": masked_mean(gap),
        "discriminator/push": masked_mean(push),
        "discriminator/push_positive": by_sign["positive"],
        "discriminator/push_negative": by_sign["negative"],
    }
