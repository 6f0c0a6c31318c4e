"""The gradient of one optimiser update: forward passes over micro-batches, the mini-batch's constants, backward."""

from __future__ import annotations

import torch
from torch import Tensor

from workbench.config import ObjectiveConfig
from workbench.methods import Composition
from workbench.policy.head import TokenStatistics
from workbench.policy.model import Policy
from workbench.policy.packing import pack
from workbench.tables import Rollouts, require_finite
from workbench.training.batching import distinct_responses, micro_batches
from workbench.training.critic import Critic
from workbench.training.objective import prepare, token_loss


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
    `current_entropy`; and the loss. A method that needs the current policy on the whole mini-batch makes all forward
    passes come before the first backward, so their graphs are held together: memory for the mini-batch, no second pass.
    Raises `NonFiniteError` with the mini-batch if any token's log-prob or loss is not finite.
    """
    rows = micro_batches(batch, budget)
    forwards = (forward(policy, batch.select_sequences(part), critic) for part in rows)
    if "current" in methods.needs:
        forwards = list(forwards)
        batch = batch.with_tokens(
            logp=torch.cat([now.logp.detach() for now, _ in forwards]),
            current_entropy=torch.cat([now.entropy.detach() for now, _ in forwards]),
        )
    batch = prepare(batch, methods, config, max_new_tokens)
    logps, ratios, entropies, losses = [], [], [], []
    for part, (now, columns) in zip(rows, forwards, strict=True):
        tokens = batch.select_sequences(part).tokens.with_columns(**columns)
        ratio = methods.ratio(tokens, now.logp)
        loss = tokens.share * token_loss(tokens, ratio, now.logp, now.entropy, methods)
        (loss.sum() * scale if scale != 1 else loss.sum()).backward()
        logps.append(now.logp.detach())
        ratios.append(ratio.detach())
        entropies.append(now.entropy.detach())
        losses.append(loss.detach())
    seen = {"logp": torch.cat(logps), "ratio": torch.cat(ratios), "current_entropy": torch.cat(entropies)}
    batch, loss = batch.with_tokens(**seen), torch.cat(losses)
    for column, values in (("logp", batch.tokens.logp), ("loss", loss)):
        require_finite(batch, column, values, "lower optimiser.learning_rate or check what makes up the loss")
    return batch, sum(part.sum().item() for part in losses)


def forward(policy: Policy, part: Rollouts, critic: Critic | None) -> tuple[TokenStatistics, dict[str, Tensor]]:
    """What `score` gives, and the critic's differentiable columns from the same hidden states."""
    if critic is None:
        return score(policy, part), {}
    once, token = _distinct(part)
    packed, temperature = pack(once), once.broadcast_to_tokens(once.sequences.score_temperature)
    hidden = policy.response_hidden(packed)
    now = policy.head(hidden, packed.target, temperature)
    columns = critic.current(policy, hidden, packed, temperature)
    return now.at(token), {name: column[token] for name, column in columns.items()}


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
    parts = [score(policy, once.select_sequences(rows), with_sums) for rows in micro_batches(once, budget)]
    names = ["logp", "entropy", *(["sum_p2", "sum_p2_logp"] if with_sums else [])]
    return TokenStatistics(**{name: torch.cat([getattr(part, name) for part in parts]) for name in names}).at(token)
