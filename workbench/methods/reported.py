"""What the methods report of themselves under `method/<name>/…`: unit, formula, rows it is over, when it misleads."""

from __future__ import annotations

from workbench.metrics.registry import Metric

LAST = "the last update's mini-batch only"
STATE = "the step"
TOKENS = "tokens of the loss in the step's last update"
BATCH = "the rollout batch"
NOT_APPLIED = "a coefficient says nothing of its effect: compare the gradient or the entropy with the run without it"
INERT = "it moves while the method is inert, too: see the method's parameters"
NO_SHARE = "few tokens or groups in it make it noisy"


def _of(method: str, *rows: tuple[str, str, str, str, str]) -> list[Metric]:
    return [Metric(f"method/{method}/{key}", *rest) for key, *rest in rows]


_REMOVED = ("removed_fraction", "fraction", "share of the tokens taken out of loss and denominator", TOKENS, LAST)

REPORTED: list[Metric] = [
    *_of(
        "adaptive_entropy",
        ("coefficient", "1", "α_k, the bonus's coefficient as applied", STATE, NOT_APPLIED),
        ("next_coefficient", "1", "c_{k+1}, whether it will be applied or not", STATE, INERT),
        ("target", "nats", "δ, the entropy to stay above", STATE, "with target 'initial' 0 before the first step"),
    ),
    *_of(
        "aer",
        ("alpha", "1", "α of the step", STATE, NOT_APPLIED),
        ("active_fraction", "fraction", "share of tokens with w(q) > 0", BATCH, INERT),
        ("target", "nats", "H*, the entropy steered to", STATE, "none before the first step has set it"),
    ),
    *_of("clip_b", _REMOVED),
    *_of("clip_v", _REMOVED),
    *_of("discriminator_arms", _REMOVED),
    *_of(
        "entropic",
        ("alpha", "1", "α = clip(K_p e + K_i Σe, −1, 1)", TOKENS, LAST),
        ("error", "nats", "e = H − H* under the current policy", TOKENS, LAST),
        ("proportional", "1", "K_p · e", TOKENS, LAST),
        ("integral", "1", "K_i Σe over the updates before", "the run so far", "there is no anti-windup: it grows on"),
        ("saturated", "0 or 1", "whether α was cut to ±1", TOKENS, LAST),
        ("likely_fraction", "fraction", "share of tokens with π > τ under the current policy", TOKENS, LAST),
    ),
    *_of(
        "erpo",
        ("all_correct", "fraction", "share of groups with correct responses only", BATCH, NO_SHARE),
        ("all_wrong", "fraction", "share of groups without a correct response", BATCH, NO_SHARE),
        ("mixed", "fraction", "share of the other groups", BATCH, NO_SHARE),
        ("temperature", "1", "mean sampling temperature", BATCH, "entropy/mean is at these temperatures, too"),
        ("reactivated", "fraction", "share of mixed groups among those sampled hotter", BATCH,
         "none while nothing was sampled hotter; heat and the policy's change are not told apart"),
    ),
    *_of(
        "etpo",
        ("kl", "nats", "mean of KL(π‖ρ) over the vocabulary, exact", BATCH, "of the policy before the updates"),
        ("root_value", "reward", "mean V before the first token", "first tokens", "late by many updates"),
        ("advantage_std", "reward", "standard deviation of Q − E_π[Q]", BATCH, "0 while Q is at its start"),
        ("bellman_error", "reward", "root mean square of y − Q", BATCH, "its targets move with Q"),
    ),
    *_of("flexible_entropy", ("raising", "0 or 1", "whether the bounds now raise entropy", STATE, INERT)),
    *_of("high_entropy_mask", ("threshold", "nats", "lowest entropy that is trained on", TOKENS, LAST)),
    *_of("offline_injection", ("offline_fraction", "fraction", "share of injected responses", BATCH,
                               "their tokens' share differs: they are longer or shorter")),
    *_of(
        "poad",
        ("root_value", "reward", "mean of the critic's value before the first token", "first tokens",
         "of the critic before its update"),
        ("advantage_std", "reward", "standard deviation of the advantages before normalisation", BATCH,
         "normalisation hides it from the update"),
        ("explained_variance", "fraction", "1 − Var(return − value)/Var(return) over tokens", BATCH,
         "0 where there is nothing to foresee; below 0 where the critic is worse than a constant"),
    ),
    *_of("pos_adv_reweight", ("lambda", "1", "λ, the weight of tokens with A > 0", STATE, NOT_APPLIED)),
    *_of(
        "prepo",
        ("rank", "count", "l, the first rank of the window", "the candidates", "ranks are within one draw"),
        ("perplexity_low", "1", "lowest prompt perplexity in the window", "the candidates", "it falls with training"),
        ("perplexity_high", "1", "highest prompt perplexity in the window", "the candidates", "it falls with training"),
        ("weight_positive", "1", "mean w_i", "responses with A > 0 in the last update", LAST),
        ("weight_negative", "1", "mean w_i", "responses with A < 0 in the last update", LAST),
    ),
    *_of("sample_polarity", ("kept_fraction", "fraction", "share of responses that stay in the update", BATCH,
                             "not the share of the gradient")),
    *_of("semantic_curriculum", ("stage", "count", "stage of the curriculum, from 1", STATE, "prompts change with it")),
    *_of(
        "sent_kl",
        ("threshold", "nats", "entropy up to which a token counts as low", TOKENS, LAST),
        ("high_cov_prob", "probability", "mean π of the high-covariance tokens", TOKENS, LAST),
    ),
    *_of(
        "steer",
        ("largest_change", "nats", "max |Ω|, up to the step size", TOKENS, "one token decides it; " + LAST),
        ("mean_weight", "1", "mean weight w", TOKENS, LAST),
    ),
]  # fmt: skip
"""Every measure of every method; some appear only where the configured parameters give them."""
