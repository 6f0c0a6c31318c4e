"""Which training prompts a step rolls out: a walk through the prompts in play, one shuffled order per epoch."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np
import torch
from torch import Tensor

from workbench.policy.model import Policy
from workbench.policy.packing import pack
from workbench.tables import Rollouts, Table, token_index
from workbench.training.batching import by_passes


class PromptWalk:
    """Goes through the prompts in play, shuffled anew every epoch, and starts over when other prompts come into play.

    The order is a function of (seed, epoch, prompts in play), so the number of prompts taken is all there is to
    remember.
    """

    def __init__(self, size: int, seed: int):
        self.size, self.seed = size, seed
        self.taken, self.pool_key = 0, ""

    def enter(self, pool: Tensor) -> None:
        """Put the prompts of the mask [size] in play. Raises `ValueError` if there are none."""
        self.pool = pool.nonzero().squeeze(1).numpy()
        if len(self.pool) == 0:
            raise ValueError("no training prompt is left in play; loosen the methods that choose prompts")
        key = "" if len(self.pool) == self.size else blake2b(self.pool.tobytes(), digest_size=8).hexdigest()
        if key != self.pool_key:
            self.taken, self.pool_key = 0, key

    @property
    def epoch(self) -> int:
        """Of the next prompt, from 1."""
        return self.taken // len(self.pool) + 1

    def take(self, count: int) -> list[int]:
        """Rows of the training set, the next `count` of the walk."""
        places = np.arange(self.taken, self.taken + count)
        self.taken += count
        size = len(self.pool)
        orders = {e: np.random.default_rng([self.seed, 1, e]).permutation(size) for e in set(places // size)}
        return [int(self.pool[orders[place // size][place % size]]) for place in places]

    def state_dict(self) -> dict:
        return {"taken": self.taken, "pool_key": self.pool_key}

    def load_state_dict(self, state: dict) -> None:
        self.taken, self.pool_key = state["taken"], state["pool_key"]


UNREAD = 0.01
"""Share of lost characters from which it is worth a sentence; tokenizers that normalise text lose a few."""


def reading_cautions(policy: Policy, name: str, texts: Sequence[str]) -> list[str]:
    """One sentence if the policy's tokenizer drops part of the prompts `texts` of set `name`. Raises `ValueError` if it
    has no token for any part of one."""
    share = policy.unread_share(texts)
    if share <= UNREAD:
        return []
    return [
        f"the policy's tokenizer has no token for {share:.0%} of the characters of '{name}', which it reads without "
        "them; take a policy that knows the text"
    ]


def prompt_perplexity(policy: Policy, prompts: list[Tensor], budget: int) -> Tensor:
    """exp(−mean log π) over each prompt's tokens after the first, which has no context [P]; 1 for a single token."""
    logp, _ = _prompt_means(policy, prompts, budget)
    alone = torch.tensor([len(ids) == 1 for ids in prompts], device=policy.device)
    return (-logp.masked_fill(alone, 0.0)).exp()


def prompt_entropy(policy: Policy, prompts: list[Tensor], budget: int) -> Tensor:
    """Mean entropy (nats, full vocabulary, temperature 1) over each prompt's positions, teacher-forced [P] fp32.

    arXiv 2511.05993, Fig. 8 (S: the token average over prompt positions); as for `prompt_perplexity` the positions are
    those of the tokens after the first, each with the tokens before it as context (I). NaN for a single token. Template
    tokens count as they stand in the prompt (I). Without gradient; prompts are packed up to `budget` tokens at a time.
    """
    return _prompt_means(policy, prompts, budget)[1]


@torch.no_grad()
def _prompt_means(policy: Policy, prompts: list[Tensor], budget: int) -> tuple[Tensor, Tensor]:
    """Means of log-prob and entropy over each prompt's tokens after the first ([P], [P]); NaN for a single token."""
    rest = torch.tensor([len(ids) - 1 for ids in prompts], device=policy.device)
    scored = rest.nonzero().squeeze(1)
    out = torch.full((2, len(prompts)), float("nan"), device=policy.device)
    if len(scored) == 0:
        return out[0], out[1]
    lengths = rest[scored]
    sequence, position = token_index(lengths)
    tokens = Table(sequence=sequence, position=position, token=torch.cat([prompts[i][1:] for i in scored.tolist()]))
    sequences = Table(prompt=torch.arange(len(scored), device=policy.device), length=lengths)
    rollouts = Rollouts([prompts[i][:1] for i in scored.tolist()], sequences, tokens)

    def measure(part: Rollouts) -> dict[str, Tensor]:
        return policy.token_statistics(pack(part), torch.ones(len(part.tokens), device=policy.device)).columns()

    columns = by_passes(rollouts, budget, measure)
    for row, name in enumerate(("logp", "entropy")):
        out[row, scored] = rollouts.mean_by_sequence(columns[name])
    return out[0], out[1]
