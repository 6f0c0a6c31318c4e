"""The training prompts a run keeps (`task.subset`), measured with the policy it starts from.

Measured anew whenever the run starts or continues: the same on the same CPU; on a GPU up to rounding, which can move
prompts at a border.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from workbench.config import RunConfig
from workbench.policy.model import Policy
from workbench.policy.packing import pack
from workbench.tables import Rollouts, Table, token_index
from workbench.tasks import subsets
from workbench.training.batching import by_passes
from workbench.training.prompts import prompt_perplexity


def kept_prompts(
    config: RunConfig, policy: Policy, ids: list[Tensor], pass_rates: Callable[[], np.ndarray]
) -> list[int]:
    """Rows of the prompts `ids` (token ids as the policy reads them) that `config.task.subset` keeps, in order.

    `pass_rates` samples the policy and is called only where the subset asks for it. Raises `ValueError` if nothing is
    left or more is asked for than there is.
    """
    subset, budget = config.task.subset, config.training.micro_batch_tokens
    rows = np.arange(len(ids))
    if subset.kind == "clusters":
        labels = subsets.clusters(prompt_embeddings(policy, ids, budget).cpu().numpy(), subset.clusters, config.seed)
        rows = subsets.of_largest_clusters(labels, subset.largest)
    elif subset.kind == "random":
        rows = subsets.at_random(len(ids), subset.size, config.seed)
    elif subset.kind == "perplexity":
        rows = subsets.of_perplexity(prompt_perplexity(policy, ids, budget).cpu().numpy(), subset.size, subset.order)
    elif subset.kind == "pass_rate":
        rows = subsets.of_pass_rate(pass_rates(), subset.pass_rate_low, subset.pass_rate_high)
    if len(rows) == 0:
        raise ValueError("task.subset keeps no training prompt; loosen it")
    return rows.tolist()


@torch.no_grad()
def prompt_embeddings(policy: Policy, prompts: list[Tensor], budget: int) -> Tensor:
    """Mean over a prompt's tokens of the last layer's hidden states, after the final norm [P, D] fp32 (arXiv
    2511.05993, Table 3 (S); the norm is (I)). Without gradient; `budget` tokens per forward."""
    lengths = torch.tensor([len(ids) for ids in prompts], device=policy.device)
    sequence, position = token_index(lengths)
    # A packed batch gives the states that predict a response: the prompt's first token asks for the rest of it, and one
    # token more makes the last state one of them.
    tokens = Table(sequence=sequence, position=position, token=torch.cat([torch.cat([x[1:], x[:1]]) for x in prompts]))
    sequences = Table(prompt=torch.arange(len(prompts), device=policy.device), length=lengths)
    rollouts = Rollouts([ids[:1] for ids in prompts], sequences, tokens)

    def measure(part: Rollouts) -> dict[str, Tensor]:
        hidden = policy.within(lambda: policy.response_hidden(pack(part))).float()
        sums = hidden.new_zeros(len(part.sequences), hidden.shape[1]).index_add_(0, part.tokens.sequence, hidden)
        return {"mean": sums / part.sequences.length.unsqueeze(1)}

    return by_passes(rollouts, budget, measure)["mean"]
