"""Scoring a share of a step's prompts a second time, after the updates: what ΔH is measured on."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from workbench.config import RunConfig
from workbench.methods.statistics import uniform
from workbench.policy.model import Policy
from workbench.tables import Rollouts
from workbench.training.update import score_in_parts

SALT = 0x7C_0A_11
"""Keeps this draw apart from others that hash seed, step and prompt."""


def chosen_prompts(count: int, share: float, seed: int, step: int) -> Tensor:
    """⌈share · count⌉ of the prompts 0 … count − 1 of a batch, ascending: a function of seed and step alone."""
    draws = uniform(torch.arange(count), seed, step, SALT)
    return draws.argsort()[: math.ceil(share * count)].sort().values


class ChangeMeasure:
    """Adds `entropy_after` and `logp_after`, NaN outside the chosen prompts, to a step's tokens; training never reads
    them. What these tokens were before the step is known from its scoring; where that was done by the sampler in half
    precision, whose rounding differs from the packed forward's, `entropy_before` and `logp_before` are taken apart."""

    def __init__(self, config: RunConfig, policy: Policy):
        self.share, self.seed = config.storage.measure_change_share, config.seed
        self.budget = config.training.micro_batch_tokens
        self.policy = policy
        self.apart = config.policy.precision != "float32" and config.training.old_logp == "rollout"

    def before(self, rollouts: Rollouts, step: int) -> Rollouts:
        return self._scored(rollouts, step, "before") if self.apart else rollouts

    def after(self, rollouts: Rollouts, step: int) -> Rollouts:
        return self._scored(rollouts, step, "after")

    def _scored(self, rollouts: Rollouts, step: int, when: str) -> Rollouts:
        if self.share == 0:
            return rollouts
        prompts = chosen_prompts(len(rollouts.prompts), self.share, self.seed, step).to(rollouts.tokens.token.device)
        rows = torch.isin(rollouts.sequences.prompt, prompts)
        places = rollouts.broadcast_to_tokens(rows)
        now = score_in_parts(self.policy, rollouts.select_sequences(rows), self.budget)
        columns = {}
        for name, values in (("entropy", now.entropy), ("logp", now.logp)):
            columns[f"{name}_{when}"] = torch.full_like(rollouts.tokens.entropy, math.nan)
            columns[f"{name}_{when}"][places] = values
        return rollouts.with_tokens(**columns)
