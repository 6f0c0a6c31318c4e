"""TRL's and verl's objectives, advantages and masks on ragged tables: pad, call, read back one value per token.

Every function calls the public code as it is installed. Log-probs are fp64; a loss comes back as (value, gradient with
respect to the log-probs [N]).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import torch
import verl.trainer.ppo.core_algos as verl_core
from torch import Tensor
from trl.losses.grpo_loss import FusedLinearGRPOFunction
from trl.trainer.grpo_trainer import GRPOTrainer
from verl.trainer.ppo.rollout_corr_helper import compute_rollout_correction_weights
from verl.workers.config.actor import ActorConfig, PolicyLossConfig

from workbench.tables import Rollouts

NO_DUAL_CLIP = 1e9
"""verl's dual clip is always on (3.0 by default); this bound is never reached."""
POLICY_LOSS_FIELDS = ("clip_cov_ratio", "clip_cov_lb", "clip_cov_ub", "kl_cov_ratio", "ppo_kl_coef")


TRL_TEXT_ONLY = {
    "environment_factories": None,
    "tools": None,
    "environments": None,
    "pad_to_multiple_of": None,
    "mask_truncated_completions": False,
    "num_iterations": 1,
    "vllm_importance_sampling_correction": True,
    "multi_objective_aggregation": "sum_then_normalize",
    "reward_weights": torch.ones(1, dtype=torch.float64),
    "reward_func_names": ["reward"],
    "log_multimodal": False,
    "_pending_extra_logs": {},
    "_pending_metrics": {},
}
"""Attributes of a TRL trainer that generates text without tools, images or environments."""


class Padded:
    """Right-padded [S, T] matrices of a ragged token table; `mask` is 1 at the tokens (of the column `mask`, if any).
    Padding holds `FILL`, so that a forgotten mask shows."""

    FILL = -3.0

    def __init__(self, rollouts: Rollouts):
        self.rows, self.columns = rollouts.tokens.sequence, rollouts.tokens.position
        self.shape = len(rollouts.sequences), int(rollouts.sequences.length.max())
        inside = rollouts.tokens.get("mask", torch.ones(len(rollouts.tokens)))
        self.mask = self.matrix(inside.double(), fill=0.0)

    def matrix(self, values: Tensor, fill: float = FILL) -> Tensor:
        """[N] -> [S, T]"""
        out = torch.full(self.shape, fill, dtype=values.dtype)
        out[self.rows, self.columns] = values
        return out

    def flat(self, matrix: Tensor) -> Tensor:
        """[S, T] -> [N]"""
        return matrix[self.rows, self.columns]

    def differentiate(self, loss: Callable[[Tensor], Tensor], values: Tensor) -> tuple[float, Tensor]:
        """(value, gradient [N]) of a scalar loss of the matrix of `values` [N]; padding must get no gradient."""
        matrix = self.matrix(values.detach()).requires_grad_()
        value = loss(matrix)
        value.backward()
        assert (matrix.grad[self.mask == 0] == 0).all(), "the reference lets padding act on the loss"
        return value.item(), self.flat(matrix.grad)


def verl_loss(
    name: str,
    rollouts: Rollouts,
    logp: Tensor,
    mode: str = "token-mean",
    weights: Tensor | None = None,
    horizon: int | None = None,
    **options: float,
) -> tuple[float, Tensor]:
    """verl's registered policy loss `name` under `loss_agg_mode` mode. `weights` [N] are rollout-correction weights,
    `horizon` the constant of "seq-mean-token-sum-norm"; options are fields of its actor or policy-loss config."""
    padded, tokens = Padded(rollouts), rollouts.tokens
    selection = {key: options.pop(key) for key in POLICY_LOSS_FIELDS if key in options}
    config = ActorConfig(
        strategy="fsdp",
        rollout_n=1,
        ppo_micro_batch_size_per_gpu=1,
        policy_loss=PolicyLossConfig(loss_mode=name, **selection),
        global_batch_info={"loss_scale_factor": horizon},
        **{"clip_ratio_c": NO_DUAL_CLIP, **options},
    )
    given = None if weights is None else padded.matrix(weights)
    policy_loss = verl_core.get_policy_loss_fn(name)

    def loss(matrix: Tensor) -> Tensor:
        old, advantage = padded.matrix(tokens.old_logp), padded.matrix(tokens.advantage)
        return policy_loss(old, matrix, advantage, padded.mask, mode, config, given)[0]

    return padded.differentiate(loss, logp)


def verl_advantage(estimator: str, rollouts: Rollouts, **options) -> Tensor:
    """Token advantages [N] of verl's registered estimator, the reward on each response's last token."""
    padded = Padded(rollouts)
    rewards = _reward_on_last_token(rollouts, padded)
    index = np.array([f"prompt {group}" for group in rollouts.sequences.group.tolist()], dtype=object)
    estimate = verl_core.get_adv_estimator_fn(estimator)
    return padded.flat(estimate(rewards, padded.mask, index, **options)[0])


def verl_gae(rollouts: Rollouts, gamma: float, gae_lambda: float) -> Tensor:
    """verl's generalised advantages [N] from the token column `value`, before it whitens them."""
    padded = Padded(rollouts)
    rewards = _reward_on_last_token(rollouts, padded)
    values = padded.matrix(rollouts.tokens.value)
    _, returns = verl_core.compute_gae_advantage_return(rewards, values, padded.mask, gamma, gae_lambda)
    return padded.flat(returns - values)


def verl_kl_loss(
    kind: str, rollouts: Rollouts, logp: Tensor, mode: str = "token-mean", weights: Tensor | None = None
) -> tuple[float, Tensor]:
    """verl's KL penalty to the reference policy as its actor adds it to the loss, with coefficient 1; `weights` [N]
    multiply the tokens' penalties before they are aggregated."""
    padded = Padded(rollouts)
    ref_logp = padded.matrix(rollouts.tokens.ref_logp)
    weight = padded.mask if weights is None else padded.matrix(weights)

    def loss(matrix: Tensor) -> Tensor:
        return verl_core.agg_loss(weight * verl_core.kl_penalty(matrix, ref_logp, kind), padded.mask, mode)

    return padded.differentiate(loss, logp)


def verl_correction(rollouts: Rollouts, level: str, threshold: float | str) -> Tensor:
    """verl's rollout-correction weights [N], π_old of the trainer over π of the sampler, truncated."""
    padded, tokens = Padded(rollouts), rollouts.tokens
    log_ratio = padded.matrix(tokens.old_logp - tokens.rollout_logp)
    weights, _ = compute_rollout_correction_weights(log_ratio, padded.mask, level, threshold)
    return padded.flat(weights)


def _reward_on_last_token(rollouts: Rollouts, padded: Padded) -> Tensor:
    sequences = rollouts.sequences
    rewards = torch.zeros(padded.shape, dtype=sequences.reward.dtype)
    rewards[torch.arange(len(sequences)), sequences.length - 1] = sequences.reward
    return rewards


def trl_loss(loss_type: str, rollouts: Rollouts, logp: Tensor, **options) -> tuple[float, Tensor]:
    """TRL's loss as its fused head computes it, `FusedLinearGRPOFunction.ppo_loss_fn`; no KL term unless `beta`."""
    padded, tokens = Padded(rollouts), rollouts.tokens
    if "vllm_is_ratio" in options:
        options["vllm_is_ratio"] = padded.matrix(options["vllm_is_ratio"])

    def loss(matrix: Tensor) -> Tensor:
        return FusedLinearGRPOFunction.ppo_loss_fn(
            matrix,
            padded.mask,
            rollouts.sequences.advantage,
            padded.mask,
            old_per_token_logps=padded.matrix(tokens.old_logp),
            ref_per_token_logps=padded.matrix(tokens.ref_logp),
            loss_type=loss_type,
            **{"beta": 0.0, **options},
        )[0]

    return padded.differentiate(loss, logp)


def trl_trainer_loss(
    loss_type: str, rollouts: Rollouts, logp: Tensor, entropy: Tensor | None = None, **options
) -> tuple[float, Tensor, Tensor]:
    """TRL's `GRPOTrainer._compute_loss`, the whole rollout batch as one optimiser step; the third value is the gradient
    with respect to the entropies [N]. Options are attributes of the trainer or of its arguments."""
    padded, tokens = Padded(rollouts), rollouts.tokens
    logps = padded.matrix(logp.detach()).requires_grad_()
    entropies = padded.matrix(tokens.entropy if entropy is None else entropy, fill=1.0).requires_grad_()
    trainer = trl_trainer(loss_type, padded, **options)
    trainer._get_per_token_logps_and_entropies = lambda *_, **__: (logps, entropies, None)
    ids = padded.matrix(tokens.token, fill=0)
    inputs = {
        "prompt_ids": ids[:, :0],
        "prompt_mask": ids[:, :0],
        "completion_ids": ids,
        "completion_mask": padded.mask,
        "advantages": rollouts.sequences.advantage,
        "old_per_token_logps": padded.matrix(tokens.old_logp),
        "ref_per_token_logps": padded.matrix(tokens.ref_logp),
        "num_items_in_batch": padded.mask.sum(),
    }
    loss = GRPOTrainer._compute_loss(trainer, trainer.model, inputs)
    loss.backward()
    by_entropy = torch.zeros_like(entropies) if entropies.grad is None else entropies.grad
    return loss.item(), padded.flat(logps.grad), padded.flat(by_entropy)


def trl_trainer(loss_type: str, padded: Padded | None = None, **options) -> SimpleNamespace:
    """What TRL's unbound methods read of a trainer: one process, no gradient accumulation, no vLLM."""
    arguments = {"use_bias_correction_kl": False, "delta": None, "steps_per_generation": 1}
    arguments |= {"gradient_accumulation_steps": 1, "gradient_checkpointing_kwargs": None}
    arguments |= {"per_device_train_batch_size": 1}
    arguments |= {"sapo_temperature_pos": 1.0, "sapo_temperature_neg": 1.05}
    attributes = {
        "loss_type": loss_type,
        "epsilon_low": 0.2,
        "epsilon_high": 0.2,
        "beta": 0.0,
        "importance_sampling_level": "token",
        "top_entropy_quantile": 1.0,
        "entropy_coef": 0.0,
        "max_completion_length": None if padded is None else padded.shape[1],
        "aux_loss_enabled": False,
        "off_policy_mask_threshold": None,
        "use_vllm": False,
        "use_adaptive_entropy": False,
        "current_gradient_accumulation_steps": 1,
    }
    arguments |= {key: options.pop(key) for key in list(options) if key in arguments}
    attributes |= options
    trainer = SimpleNamespace(**attributes, args=SimpleNamespace(**arguments), accelerator=_OneProcess())
    trainer.model = SimpleNamespace(training=True, is_gradient_checkpointing=False)
    trainer.processing_class = SimpleNamespace(batch_decode=lambda ids, **_: ["" for _ in ids])
    trainer._tokenizer = SimpleNamespace(pad_token_id=0)
    trainer._logs = defaultdict(list, rewards=defaultdict(list), extra={})
    trainer._entropy_bonus_enabled = trainer.entropy_coef != 0
    trainer._metrics = {"train": defaultdict(list)}
    trainer.get_high_entropy_mask = lambda *a: GRPOTrainer.get_high_entropy_mask(trainer, *a)
    return trainer


def trl_scored(rollouts: Rollouts, **options) -> tuple[Tensor, Tensor | None]:
    """TRL's `GRPOTrainer._generate_and_score_completions` with generation, scoring and rewards taken from the tables.

    Returns the sequences' advantages [S] and, with `vllm_importance_sampling_mode`, its weights for the mismatch of
    sampler and trainer [N] (else None). Groups must be contiguous and of one size.
    """
    padded, sequences, tokens = Padded(rollouts), rollouts.sequences, rollouts.tokens
    lengths = sequences.length.tolist()
    corrected = "vllm_importance_sampling_mode" in options
    options = {"vllm_importance_sampling_clip_min": None, **options}
    completions = [part.tolist() for part in tokens.token.split(lengths)]
    sampled = [part.tolist() for part in tokens.rollout_logp.split(lengths)] if corrected else None
    trainer = trl_trainer("dapo", padded, use_vllm=corrected, **TRL_TEXT_ONLY, **options)
    trainer.num_generations = int((sequences.group == 0).sum())
    trainer._generate = lambda prompts: (prompts, completions, None, completions, sampled, {}, None, None)
    trainer._calculate_rewards = lambda *_: sequences.reward.unsqueeze(1)
    trainer._get_per_token_logps_and_entropies = lambda *_, **__: (padded.matrix(tokens.old_logp), None, None)
    prompts = [{"prompt": rollouts.prompts[i].tolist()} for i in sequences.prompt.tolist()]
    scored = GRPOTrainer._generate_and_score_completions(trainer, prompts)
    weights = scored.get("importance_sampling_ratio")
    return scored["advantages"], None if weights is None else padded.flat(weights.expand(padded.shape))


def trl_high_entropy_mask(rollouts: Rollouts, entropy: Tensor, fraction: float) -> Tensor:
    """TRL's mask [N] bool of the `fraction` of tokens with the highest entropy [N]."""
    padded = Padded(rollouts)
    matrix = padded.matrix(entropy, fill=100.0)
    mask = trl_trainer("dapo").get_high_entropy_mask(matrix, padded.mask, 1 - fraction)
    assert not mask[padded.mask == 0].any()
    return padded.flat(mask)


class _OneProcess:
    """What TRL's methods ask of accelerate, on one process."""

    device = torch.device("cpu")
    num_processes = 1
    process_index = 0
    is_main_process = False
    sync_gradients = True

    def pad_across_processes(self, tensor: Tensor, dim: int, pad_index: float) -> Tensor:
        return tensor

    def gather(self, tensor: Tensor) -> Tensor:
        return tensor

    def reduce(self, tensor: Tensor, reduction: str) -> Tensor:
        return tensor
