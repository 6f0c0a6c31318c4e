"""Made-up fp64 rollouts that reach every branch: clipping on both sides, ratios beyond 3, length 1, equal rewards."""

from __future__ import annotations

import torch
from torch import Tensor

from workbench.tables import Rollouts, Table, token_index

GROUPS, SAMPLES, LONGEST = 4, 5, 33


def random_rollouts(seed: int) -> tuple[Rollouts, Tensor]:
    """(rollouts, current log-probs [N]). 4 groups of 5 responses of 1 to 33 tokens; the first two responses have one
    token, the last group's rewards are all equal. Advantages are group-normalised, one per response."""
    g = torch.Generator().manual_seed(seed)
    count = GROUPS * SAMPLES
    length = torch.randint(1, LONGEST + 1, (count,), generator=g)
    length[:2] = 1
    reward = torch.randn(count, generator=g, dtype=torch.float64)
    reward[-SAMPLES:] = 0.7
    group = torch.arange(count) // SAMPLES
    grouped = reward.reshape(GROUPS, SAMPLES)
    advantage = (grouped - grouped.mean(1, keepdim=True)) / (grouped.std(1, keepdim=True) + 1e-6)
    advantage[-1] = 0
    sequence, position = token_index(length)
    size = len(sequence)

    def noise(scale: float) -> Tensor:
        return scale * torch.randn(size, generator=g, dtype=torch.float64)

    old_logp = -noise(1.5).abs() - 0.01
    sequences = Table(
        prompt=group,
        group=group,
        sample=torch.arange(count) % SAMPLES,
        length=length,
        reward=reward,
        correct=reward > 0,
        advantage=advantage.flatten(),
        temperature=torch.ones(count, dtype=torch.float64),
        score_temperature=torch.ones(count, dtype=torch.float64),
        finished=torch.ones(count, dtype=torch.bool),
    )
    tokens = Table(
        sequence=sequence,
        position=position,
        token=torch.randint(0, 100, (size,), generator=g),
        old_logp=old_logp,
        rollout_logp=(old_logp + noise(0.4)).float().double(),  # exact in fp32: TRL reads both as such
        ref_logp=old_logp + noise(0.3),
        entropy=noise(1.0).abs().float().double(),
        advantage=sequences.advantage[sequence],
    )
    prompts = [torch.tensor([1, 2, 3])] * GROUPS
    return Rollouts(prompts, sequences, tokens), old_logp + noise(0.6)


def table_of_mask(mask: Tensor, group: Tensor, reward: Tensor) -> Rollouts:
    """Rollouts of the tokens where mask [S, T] is set, row by row; only what advantages and denominators read."""
    length = mask.sum(-1).long()
    sequence, position = token_index(length)
    sequences = Table(prompt=group, group=group, length=length, reward=reward)
    return Rollouts([], sequences, Table(sequence=sequence, position=position))
