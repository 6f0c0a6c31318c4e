"""What methods and trainer agree on: columns on request, hooks of which a run has one, where a run stands, a critic."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

NEEDS = {
    "old_logp": "tokens.old_logp and tokens.entropy of the policy before the step's updates, in hooks before `ratio`",
    "current": "tokens.logp and tokens.current_entropy of the policy about to be updated, on the whole mini-batch "
    "(its graph is held until the update; no second pass)",
    "ref_logp": "tokens.ref_logp: log-prob under the initial policy",
    "expected_discriminator": "tokens.expected_discriminator: E_{v~π}[S_v], S_v = π_v (H + log π_v), at sampling time",
    "prompt_perplexity": "prompts.perplexity: exp of the mean negative log-prob of the prompt's tokens after the first",
    "semantic_entropy": "prompts.semantic_entropy: entropy over answers of samples of the initial policy, nats",
    "values": "tokens.value: the critic's value of the prefix before the token, at sampling time (critic head 'value')",
    "soft_values": "tokens.q, .expected_q, .target_expected_q, .exact_kl: the critic's Q of the sampled token, E_π[Q] "
    "with it and with its slow copy, and KL(π‖π_initial), exact, at sampling time; tokens.current_expected_q and "
    ".current_kl: the same of the policy in training, differentiable in it (critic head 'vocabulary')",
}
"""What `Method.needs` may ask for, and where it then is."""
EXCLUSIVE = ("baseline", "ratio", "surrogate", "clip", "critic")
"""Hooks of which a run uses at most one (of `baseline` exactly one)."""


@dataclass(frozen=True)
class Progress:
    """Where a run stands: `step` of `steps` and `epoch` of `epochs`, from 1; `update` of a step's `updates`, from 0."""

    seed: int
    step: int
    steps: int
    epoch: int
    epochs: int
    update: int = 0
    updates: int = 1
    max_new_tokens: int = 1


@dataclass(frozen=True)
class CriticConfig:
    """A critic: a second causal LM that starts as the policy, with an output head of its own that starts at zero.

    head: "vocabulary", Q(s, w_<t, ·) per token of the vocabulary, of which the sampled one is regressed; or "value",
    V(s, w_<t). learning_rate: constant rate of its AdamW. max_grad_norm: its gradient's largest L2 norm. huber: δ of
    its loss, in units of reward. polyak: what its slow copy keeps of itself per update; None: no copy.
    """

    head: Literal["vocabulary", "value"]
    learning_rate: float
    max_grad_norm: float
    huber: float
    polyak: float | None = None
