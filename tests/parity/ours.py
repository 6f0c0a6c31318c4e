"""Our side of a comparison: the functions that the trainer calls, on given log-probs in place of a model's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import SimpleNamespace

import torch
from torch import Tensor

from tests.parity.batches import LONGEST
from workbench.config import RunConfig, make_config
from workbench.methods import Composition, Progress
from workbench.policy.head import TokenStatistics
from workbench.tables import Rollouts
from workbench.training.advantages import assign_advantages
from workbench.training.update import accumulate_gradient

ONE_MICRO_BATCH = 1 << 30
OFF_POLICY = {"training.old_logp": "trainer", "evaluation.sets": []}
"""Config of all comparisons: the ratio's denominator is not the sampler's log-prob; nothing is evaluated."""


class GivenPolicy:
    """Log-probs and entropies [N] that are leaves of the graph, handed out in the order the update asks for them."""

    def __init__(self, logp: Tensor, entropy: Tensor):
        self.logp = logp.detach().clone().requires_grad_()
        self.entropy = entropy.detach().clone().requires_grad_()
        self.asked = 0

    def token_statistics(self, packed, temperature: Tensor, with_sums: bool = False) -> TokenStatistics:
        rows = slice(self.asked, self.asked + len(temperature))
        self.asked = rows.stop
        return TokenStatistics(logp=self.logp[rows], entropy=self.entropy[rows])


def composed(methods: Sequence, overrides: Mapping | None = None) -> tuple[RunConfig, Composition]:
    """A run's config and its methods, at the first update of the first step."""
    config = make_config({"methods": list(methods)}, {**OFF_POLICY, **(overrides or {})})
    composition = Composition(config.build_methods())
    composition.begin(Progress(seed=config.seed, step=1, steps=1, epoch=1, epochs=1))
    return config, composition


def our_loss(
    methods: Sequence, rollouts: Rollouts, logp: Tensor, overrides: Mapping | None = None, budget: int = ONE_MICRO_BATCH
) -> SimpleNamespace:
    """The loss of one optimiser mini-batch, `budget` tokens at a time: `value`, its derivatives `by_logp` and
    `by_entropy` [N], and `tokens`, the table with what the update attached to it."""
    config, composition = composed(methods, overrides)
    policy = GivenPolicy(logp, rollouts.tokens.entropy)
    batch, value = accumulate_gradient(policy, rollouts, composition, config.objective, budget, LONGEST)
    by_entropy = torch.zeros_like(policy.entropy) if policy.entropy.grad is None else policy.entropy.grad
    return SimpleNamespace(value=value, by_logp=policy.logp.grad, by_entropy=by_entropy, tokens=batch.tokens)


def our_advantages(methods: Sequence, rollouts: Rollouts) -> Tensor:
    """Token advantages [N] as the trainer assigns them."""
    return assign_advantages(rollouts, composed(methods)[1]).tokens.advantage
