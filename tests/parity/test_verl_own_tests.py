"""verl's own CPU tests, run against our implementation under verl's function names.

The files come from the installed wheel; nothing of them is kept here. Each replaced function keeps its verl signature
and only converts matrices to tables and back. Where a test compares two of verl's functions, one stays verl's.

Left out, since we have nothing of the kind: the tests of verl's registry and of DRO; and multi-turn GAE, whose rewards
and observations inside a response our tables do not have.
"""

from __future__ import annotations

import importlib.util
from importlib.metadata import distribution
from types import ModuleType

import numpy as np
import torch
from torch import Tensor

from tests.parity.batches import table_of_mask
from tests.parity.ours import our_advantages
from workbench.methods.kl_reference import kl_estimate
from workbench.training.objective import token_share

KL_NAMES = {"kl": "k1", "k1": "k1", "k2": "k2", "mse": "k2", "k3": "k3", "low_var_kl": "k3", "abs": "abs"}


def verl_tests(file: str, **replacements) -> ModuleType:
    """verl's test module `file` with our functions under its names."""
    path = distribution("verl").locate_file(f"tests/trainer/ppo/{file}.py")
    spec = importlib.util.spec_from_file_location(f"verl_{file}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name, function in replacements.items():
        assert hasattr(module, name), f"verl's {file} does not use {name}"
        setattr(module, name, function)
    return module


def advantage_of(method: str):
    """Our baseline `method` with the signature of verl's outcome advantages."""

    def advantage(token_level_rewards: Tensor, response_mask: Tensor, index: np.ndarray) -> tuple[Tensor, Tensor]:
        group = torch.from_numpy(np.unique(index, return_inverse=True)[1])
        rollouts = table_of_mask(response_mask, group, token_level_rewards.sum(-1))
        matrix = torch.zeros_like(response_mask)
        matrix[response_mask.bool()] = our_advantages([method], rollouts)
        return matrix, matrix

    return advantage


def kl_penalty(logprob: Tensor, ref_logprob: Tensor, kind: str) -> Tensor:
    """verl's names of our estimates; with a '+' the gradient is that of k2 (the straight-through step is written here,
    both numbers are ours)."""
    value = kl_estimate(logprob, ref_logprob, KL_NAMES[kind.removesuffix("+")])
    if not kind.endswith("+"):
        return value
    k2 = kl_estimate(logprob, ref_logprob, "k2")
    return k2 - k2.detach() + value.detach()


def agg_loss(loss_mat: Tensor, loss_mask: Tensor, loss_agg_mode: str, dp_size: int = 1) -> Tensor:
    """verl's "token-sum" is our denominator `constant` with a length of 1, times the number of sequences."""
    assert loss_agg_mode == "token-sum"
    count = len(loss_mat)
    rollouts = table_of_mask(loss_mask, torch.zeros(count, dtype=torch.int64), torch.zeros(count))
    values = loss_mat[loss_mask.bool()]
    rollouts = rollouts.with_tokens(mask=torch.ones_like(values, dtype=torch.bool), advantage=values)
    return (token_share(rollouts, "constant", 1) * values).sum() * count * dp_size


_core = verl_tests(
    "test_core_algos_on_cpu",
    compute_grpo_outcome_advantage=advantage_of("grpo"),
    compute_rloo_outcome_advantage=advantage_of("rloo"),
    kl_penalty=kl_penalty,
)
_aggregation = verl_tests("test_loss_aggregation_on_cpu", agg_loss=agg_loss)

test_grpo_equals_the_vectorised_one_of_verl = _core.test_grpo_and_vectorized_equivalence
test_grpo_with_low_variance_rewards = _core.test_grpo_vectorized_matches_original_for_low_variance_rewards
test_rloo_equals_the_vectorised_one_of_verl = _core.test_rloo_and_vectorized_equivalence
test_straight_through_kl_keeps_the_value = _core.test_kl_penalty_straight_through_value_matches_base
test_straight_through_kl_has_the_gradient_of_k2 = _core.test_kl_penalty_k3_plus_uses_k2_gradient
test_token_sum_masks_tokens = _aggregation.test_token_sum_masks_tokens_and_scales_for_dp
test_token_sum_is_microbatch_invariant = _aggregation.test_token_sum_is_microbatch_invariant
test_token_sum_over_ranks = _aggregation.test_token_sum_matches_global_sum_after_fsdp_mean_reduction
