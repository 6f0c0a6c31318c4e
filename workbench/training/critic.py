"""The critic of methods that have one: a second causal LM with its own output head, optimiser and slow copy."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from workbench import ranks
from workbench.config import OptimiserConfig
from workbench.methods import statistics
from workbench.methods.terms import CriticConfig
from workbench.policy.model import Policy
from workbench.policy.packing import PackedBatch, pack
from workbench.policy.soft_head import Layer, SoftStatistics, soft_head
from workbench.policy.tensor_files import read_tensors, tensor_shapes, write_tensors
from workbench.tables import Rollouts
from workbench.training.batching import by_passes, passes
from workbench.training.optimiser import Optimiser

MOMENTS = "optimiser."
"""Prefix of the optimiser's tensors in a file."""


class Critic:
    """Scores rollouts with values (head "value") or soft action values (head "vocabulary"), and learns from targets.

    It starts as a copy of `policy` whose output layer is replaced by one of zeros, without bias; everything else of it
    is trained too. `reference` is ρ, needed for soft values. What it computes is fp32 at least. With a `device` it is
    divided among the ranks, which `policy` must not be yet.
    """

    def __init__(
        self,
        policy: Policy,
        config: CriticConfig,
        total_updates: int,
        reference: Policy | None = None,
        device: str | None = None,
    ):
        self.config, self.reference = config, reference
        self.net = critic_network(policy, config.head)
        self.target = None if config.polyak is None else copy.deepcopy(self.net)
        settings = OptimiserConfig(learning_rate=config.learning_rate, max_grad_norm=config.max_grad_norm)
        for net in self._nets().values() if device else ():
            net.divide(device)
        self.optimiser = Optimiser(self.net.parameters, settings, total_updates, policy.precision)

    @torch.no_grad()
    def columns(self, policy: Policy, rollouts: Rollouts, budget: int) -> dict[str, Tensor]:
        """Token columns [N] of the rollout batch under the present policy: `value`; or `q`, `expected_q`,
        `target_expected_q` and `exact_kl` (see `workbench.methods.base.NEEDS`)."""
        return by_passes(rollouts, budget, partial(self._score, policy))

    def _score(self, policy: Policy, part: Rollouts) -> dict[str, Tensor]:
        packed, temperature = pack(part), part.broadcast_to_tokens(part.sequences.score_temperature)

        def value() -> dict[str, Tensor]:
            return {"value": sampled_values(self.net.response_hidden(packed), _weight(self.net), packed.target)}

        def soft_values() -> dict[str, Tensor]:
            hidden = self.net.response_hidden(packed)
            policy_layer, reference = _layer(policy, packed), _layer(self.reference, packed)
            online = soft_head(policy_layer, reference, Layer(hidden, _weight(self.net)), temperature)
            slow = soft_head(policy_layer, reference, _layer(self.target, packed), temperature)
            return {
                "q": sampled_values(hidden, _weight(self.net), packed.target),
                "expected_q": online.expected_q,
                "target_expected_q": slow.expected_q,
                "exact_kl": online.kl,
            }

        if self.config.head == "value":
            return self.net.within(value)
        return _within((policy, self.reference, self.net, self.target), soft_values)

    def current(self, policy: Policy, hidden: Tensor, packed: PackedBatch, temperature: Tensor) -> dict[str, Tensor]:
        """`current_expected_q` and `current_kl` [n] of the policy in training, whose hidden states [n, D] these are;
        differentiable in them and in its output layer. Nothing for a critic of values. Called within a forward pass of
        `policy`."""

        def compute() -> dict[str, Tensor]:
            output = policy.model.get_output_embeddings()
            with torch.no_grad():
                reference, critic = _layer(self.reference, packed), _layer(self.net, packed)
            now: SoftStatistics = soft_head(Layer(hidden, output.weight, output.bias), reference, critic, temperature)
            return {"current_expected_q": now.expected_q, "current_kl": now.kl}

        if self.config.head == "value":
            return {}
        others = [other for other in (self.reference, self.net) if other.sharding is not policy.sharding]
        return _within(others, compute)

    def update(self, batch: Rollouts, budget: int) -> dict[str, float]:
        """One step on the mean Huber loss of `tokens.critic_target` over the mini-batch's tokens, then the slow copy's.

        Returns the loss before the step and the gradient's norm. Raises `FloatingPointError` if either is non-finite,
        before any weight is touched.
        """
        count = statistics.total(torch.ones_like(batch.tokens.sequence)).to(batch.tokens.critic_target.dtype)
        total = 0.0
        for one in passes(batch, budget):
            part = batch.select_sequences(one.rows)
            loss = (self._error(part) / count).sum() * (0 if one.blank else 1)
            (loss * self.optimiser.loss_scale).backward()
            total += loss.item()
        total = sum(ranks.gathered_list([total]))
        # Huber's gradient is bounded, so an infinite target shows in the loss alone.
        if not math.isfinite(total):
            raise FloatingPointError("non-finite loss of the critic; lower its critic_learning_rate")
        norm = self.optimiser.step()["grad/norm"]
        self._move_target()
        return {"critic/loss": total, "critic/grad_norm": norm}

    def _error(self, part: Rollouts) -> Tensor:
        """Huber loss of each token [n]."""
        packed = pack(part)
        given = self.net.within(
            lambda: sampled_values(self.net.response_hidden(packed), _weight(self.net), packed.target)
        )
        return nn.functional.huber_loss(given, part.tokens.critic_target, delta=self.config.huber, reduction="none")

    @torch.no_grad()
    def _move_target(self) -> None:
        if self.target is None:
            return
        for slow, fast in zip(self.target.model.parameters(), self.net.model.parameters(), strict=True):
            slow.lerp_(fast, 1 - self.config.polyak)

    def save(self, path: Path) -> None:
        """Weights, slow copy and AdamW's moments as one file; all ranks do it together."""
        write_tensors(path, self._tensors(self.optimiser.state_tensors()))

    def restore(self, path: Path, updates: int) -> None:
        """Take what `save` wrote after so many updates. Raises `ValueError` if it is not of such a critic."""
        shapes = {name: shape for name, shape in tensor_shapes(path).items() if name.startswith(MOMENTS)}
        moments = self.optimiser.blank_state({name.removeprefix(MOMENTS): shape for name, shape in shapes.items()})
        read_tensors(path, self._tensors(moments))
        self.optimiser.load_state_tensors(moments, updates)

    def _tensors(self, moments: dict[str, Tensor]) -> dict[str, Tensor]:
        nets = {f"{part}.{name}": value for part, net in self._nets().items() for name, value in net.tensors().items()}
        return nets | {f"{MOMENTS}{name}": value for name, value in moments.items()}

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


def _within(policies: Iterable[Policy], call: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """`call()` within one forward pass of each; those that share their weights, as the policy and its reference without
    adapters do, make one together."""
    for policy in {id(policy.sharding): policy for policy in policies}.values():
        call = partial(policy.within, call)
    return call()


def _weight(net: Policy) -> Tensor:
    return net.model.get_output_embeddings().weight


def _layer(policy: Policy, packed: PackedBatch) -> Layer:
    output = policy.model.get_output_embeddings()
    return Layer(policy.response_hidden(packed), output.weight, output.bias)
