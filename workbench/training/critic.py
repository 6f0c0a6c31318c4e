"""The critic of methods that have one: a second causal LM with its own output head, optimiser and slow copy."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn

from workbench.config import OptimiserConfig
from workbench.methods import statistics
from workbench.methods.terms import CriticConfig
from workbench.policy.model import Policy
from workbench.policy.packing import PackedBatch, pack
from workbench.policy.soft_head import Layer, SoftStatistics, soft_head
from workbench.tables import Rollouts
from workbench.training.batching import micro_batches
from workbench.training.optimiser import Optimiser


class Critic:
    """Scores rollouts with values (head "value") or soft action values (head "vocabulary"), and learns from targets.

    It starts as a copy of `policy` whose output layer is replaced by one of zeros, without bias; everything else of it
    is trained too. `reference` is ρ, needed for soft values. What it computes is fp32 at least.
    """

    def __init__(self, policy: Policy, config: CriticConfig, total_updates: int, reference: Policy | None = None):
        self.config, self.reference = config, reference
        self.net = critic_network(policy, config.head)
        self.target = None if config.polyak is None else copy.deepcopy(self.net)
        settings = OptimiserConfig(learning_rate=config.learning_rate, max_grad_norm=config.max_grad_norm)
        self.optimiser = Optimiser(self.net.parameters, settings, total_updates, policy.precision)

    @torch.no_grad()
    def columns(self, policy: Policy, rollouts: Rollouts, budget: int) -> dict[str, Tensor]:
        """Token columns [N] of the rollout batch under the present policy: `value`; or `q`, `expected_q`,
        `target_expected_q` and `exact_kl` (see `workbench.methods.base.NEEDS`)."""
        parts = [self._score(policy, rollouts.select_sequences(p)) for p in micro_batches(rollouts, budget)]
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def _score(self, policy: Policy, part: Rollouts) -> dict[str, Tensor]:
        packed, temperature = pack(part), part.broadcast_to_tokens(part.sequences.score_temperature)
        hidden = self.net.response_hidden(packed)
        given = sampled_values(hidden, _weight(self.net), packed.target)
        if self.config.head == "value":
            return {"value": given}
        policy_layer, reference = _layer(policy, packed), _layer(self.reference, packed)
        online = soft_head(policy_layer, reference, Layer(hidden, _weight(self.net)), temperature)
        slow = soft_head(policy_layer, reference, _layer(self.target, packed), temperature)
        return {
            "q": given,
            "expected_q": online.expected_q,
            "target_expected_q": slow.expected_q,
            "exact_kl": online.kl,
        }

    def current(self, policy: Policy, hidden: Tensor, packed: PackedBatch, temperature: Tensor) -> dict[str, Tensor]:
        """`current_expected_q` and `current_kl` [n] of the policy in training, whose hidden states [n, D] these are;
        differentiable in them and in its output layer. Nothing for a critic of values."""
        if self.config.head == "value":
            return {}
        output = policy.model.get_output_embeddings()
        with torch.no_grad():
            reference, critic = _layer(self.reference, packed), _layer(self.net, packed)
        now: SoftStatistics = soft_head(Layer(hidden, output.weight, output.bias), reference, critic, temperature)
        return {"current_expected_q": now.expected_q, "current_kl": now.kl}

    def update(self, batch: Rollouts, budget: int) -> dict[str, float]:
        """One step on the mean Huber loss of `tokens.critic_target` over the mini-batch's tokens, then the slow copy's.

        Returns the loss before the step and the gradient's norm. Raises `FloatingPointError` if either is non-finite,
        before any weight is touched.
        """
        count = statistics.total(torch.ones_like(batch.tokens.sequence)).to(batch.tokens.critic_target.dtype)
        total = 0.0
        for rows in micro_batches(batch, budget):
            part = batch.select_sequences(rows)
            packed = pack(part)
            given = sampled_values(self.net.response_hidden(packed), _weight(self.net), packed.target)
            error = nn.functional.huber_loss(
                given, part.tokens.critic_target, delta=self.config.huber, reduction="none"
            )
            loss = (error / count).sum()
            (loss * self.optimiser.loss_scale).backward()
            total += loss.item()
        # Huber's gradient is bounded, so an infinite target shows in the loss alone.
        if not math.isfinite(total):
            raise FloatingPointError("non-finite loss of the critic; lower its critic_learning_rate")
        norm = self.optimiser.step()["grad/norm"]
        self._move_target()
        return {"critic/loss": total, "critic/grad_norm": norm}

    @torch.no_grad()
    def _move_target(self) -> None:
        if self.target is None:
            return
        for slow, fast in zip(self.target.model.parameters(), self.net.model.parameters(), strict=True):
            slow.lerp_(fast, 1 - self.config.polyak)

    def state_tensors(self) -> dict[str, Tensor]:
        """Weights, slow copy and AdamW's moments as named tensors, for a checkpoint."""
        parts = {"optimiser": self.optimiser.state_tensors()}
        parts |= {name: net.model.state_dict() for name, net in self._nets().items()}
        return {f"{part}.{key}": value for part, tensors in parts.items() for key, value in tensors.items()}

    def load_state_tensors(self, tensors: dict[str, Tensor], updates: int) -> None:
        """Raises `ValueError` if the tensors are not those of such a critic."""
        parts: dict[str, dict[str, Tensor]] = {"optimiser": {}}
        for name, value in tensors.items():
            part, key = name.split(".", 1)
            parts.setdefault(part, {})[key] = value
        for name, net in self._nets().items():
            try:
                net.model.load_state_dict(parts.get(name, {}))
            except RuntimeError as error:
                raise ValueError(f"the checkpoint's {name} does not fit: {str(error).splitlines()[0]}") from error
        self.optimiser.load_state_tensors(parts["optimiser"], updates)

    def _nets(self) -> dict[str, Policy]:
        return {"critic": self.net} | ({} if self.target is None else {"target": self.target})


def critic_network(policy: Policy, head: str) -> Policy:
    """A copy of `policy` with an output layer of zeros: one row per token of the vocabulary, or a single one."""
    output = policy.model.get_output_embeddings()
    vocabulary, width = output.weight.shape
    model = copy.deepcopy(policy.model)
    model.config.tie_word_embeddings = False
    rows = vocabulary if head == "vocabulary" else 1
    layer = nn.Linear(width, rows, bias=False, device=policy.device, dtype=output.weight.dtype)
    nn.init.zeros_(layer.weight)
    model.set_output_embeddings(layer)
    net = Policy(model, policy.tokenizer)
    net.precision = policy.precision
    return net


def sampled_values(hidden: Tensor, weight: Tensor, token: Tensor) -> Tensor:
    """hidden [n, D] through the output row of each token [n] int64, or through the only row of `weight`; fp32 [n].

    Only the sampled token's row is read: no pass over the vocabulary.
    """
    wide = torch.promote_types(hidden.dtype, torch.float32)
    rows = nn.functional.embedding(token if len(weight) > 1 else torch.zeros_like(token), weight)
    return torch.linalg.vecdot(hidden.to(wide), rows.to(wide))


def _weight(net: Policy) -> Tensor:
    return net.model.get_output_embeddings().weight


def _layer(policy: Policy, packed: PackedBatch) -> Layer:
    output = policy.model.get_output_embeddings()
    return Layer(policy.response_hidden(packed), output.weight, output.bias)
