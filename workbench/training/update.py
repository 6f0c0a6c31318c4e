"""The gradient of one optimiser update: forward passes over micro-batches, the mini-batch's constants, backward."""

from __future__ import annotations

import torch
from torch import Tensor

from workbench.config import ObjectiveConfig
from workbench.methods import Composition, statistics
from workbench.policy.gather import gather
from workbench.policy.head import TokenStatistics
from workbench.policy.model import Policy
from workbench.policy.packing import pack
from workbench.tables import Rollouts, require_finite
from workbench.training.batching import by_passes, distinct_responses, joined, passes
from workbench.training.critic import Critic
from workbench.training.objective import prepare, token_loss

OLD = ("old_logp", "entropy", "expected_discriminator")
"""Token columns that say what the policy was before a step's updates."""


def accumulate_gradient(
    policy: Policy,
    batch: Rollouts,
    methods: Composition,
    config: ObjectiveConfig,
    budget: int,
    max_new_tokens: int,
    critic: Critic | None = None,
    scale: float = 1.0,
) -> tuple[Rollouts, float]:
    """Add `scale` times the gradient of a mini-batch's loss to the policy's parameters; `budget` is tokens per
    micro-batch.

    A critic over the vocabulary adds its differentiable columns to the tokens that the objective sees.
    Returns the mini-batch with the constants of `prepare` and, as they were before the update, `logp`, `ratio` and
    `current_entropy`; and the loss. Where the step's log-probs before its updates (`OLD`) are not known yet, they are
    those of this update, the first, and are attached. A method that needs the current policy on the whole mini-batch
    makes all forward passes come before the first backward, so their graphs are held together: memory for the
    mini-batch, no second pass. Raises `NonFiniteError` with the mini-batch if any token's log-prob or loss is not
    finite.
    """
    own, finds_old = passes(batch, budget), "old_logp" not in batch.tokens
    forwards = (forward(policy, batch.select_sequences(one.rows), critic, with_sums=finds_old) for one in own)
    if "current" in methods.needs:
        forwards = list(forwards)
        columns = [{"logp": now.logp.detach(), "current_entropy": now.entropy.detach()} for now, _ in forwards]
        old = [old_columns(now) if finds_old else {} for now, _ in forwards]
        batch = batch.with_tokens(**joined(own, [a | b for a, b in zip(columns, old, strict=True)]))
    batch = prepare(batch, methods, config, max_new_tokens)
    seen: list[dict[str, Tensor]] = []
    for one, (now, columns) in zip(own, forwards, strict=True):
        old = old_columns(now) if finds_old else {}
        tokens = batch.select_sequences(one.rows).tokens.with_columns(**columns, **old)
        ratio = methods.ratio(tokens, now.logp)
        share = tokens.share * 0 if one.blank else tokens.share
        loss = share * token_loss(tokens, ratio, now.logp, now.entropy, methods)
        (loss.sum() * scale if scale != 1 else loss.sum()).backward()
        part = {"logp": now.logp, "ratio": ratio, "current_entropy": now.entropy, "loss": loss}
        seen.append({name: values.detach() for name, values in part.items()} | old)
    columns = joined(own, seen)
    loss = columns.pop("loss")
    batch = batch.with_tokens(**columns)
    for column, values in (("logp", batch.tokens.logp), ("loss", loss)):
        require_finite(batch, column, values, "lower optimiser.learning_rate or check what makes up the loss")
    return batch, statistics.total(loss).item()


def old_columns(now: TokenStatistics) -> dict[str, Tensor]:
    """`OLD` out of the statistics, sums included, of the policy before a step's updates."""
    expected = now.entropy * now.sum_p2 + now.sum_p2_logp
    columns = {"old_logp": now.logp, "entropy": now.entropy, "expected_discriminator": expected}
    return {name: column.detach() for name, column in columns.items()}


def forward(
    policy: Policy, part: Rollouts, critic: Critic | None, with_sums: bool = False
) -> tuple[TokenStatistics, dict[str, Tensor]]:
    """What `score` gives, and the critic's differentiable columns from the same hidden states."""
    if critic is None:
        return score(policy, part, with_sums), {}
    once, token = _distinct(part)
    packed, temperature = pack(once), once.broadcast_to_tokens(once.sequences.score_temperature)

    def compute() -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        hidden = policy.response_hidden(packed)
        now = policy.head(hidden, packed.target, temperature)
        return now.columns(), critic.current(policy, hidden, packed, temperature)

    now, columns = policy.within(compute)
    return TokenStatistics(**now).at(token), {name: gather(column, token) for name, column in columns.items()}


def score(policy: Policy, part: Rollouts, with_sums: bool = False) -> TokenStatistics:
    """Log-prob and entropy of the response tokens, at each response's `score_temperature`.

    A response that a prompt got several times, as most are once a policy has collapsed, is computed once; its gradient
    is the sum over its copies'.
    """
    once, token = _distinct(part)
    temperature = once.broadcast_to_tokens(once.sequences.score_temperature)
    return policy.token_statistics(pack(once), temperature, with_sums).at(token)


def _distinct(rollouts: Rollouts) -> tuple[Rollouts, Tensor | slice]:
    """The different responses, and where in their tokens each token of `rollouts` stands."""
    first, place = distinct_responses(rollouts)
    if len(first) == len(place):
        return rollouts, slice(None)
    once = rollouts.select_sequences(first)
    lengths = once.sequences.length
    starts = lengths.cumsum(0) - lengths
    return once, rollouts.broadcast_to_tokens(starts[place]) + rollouts.tokens.position


@torch.no_grad()
def score_in_parts(policy: Policy, rollouts: Rollouts, budget: int, with_sums: bool = False) -> TokenStatistics:
    """The same of any number of sequences, `budget` tokens at a time, without a graph."""
    once, token = _distinct(rollouts)
    columns = by_passes(once, budget, lambda part: score(policy, part, with_sums).columns())
    return TokenStatistics(**columns).at(token)
