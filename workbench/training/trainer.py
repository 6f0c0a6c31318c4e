"""One rollout step: sample, verify, give advantages, update. Knows nothing of folders or processes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from workbench.config import RunConfig
from workbench.methods import Composition
from workbench.metrics.step import step_metrics, update_metrics
from workbench.policy.model import Policy, load_policy
from workbench.policy.packing import pack
from workbench.rollout import NativeEngine, Stream
from workbench.tables import Rollouts
from workbench.tasks import Prompt, get_task
from workbench.training.advantages import assign_advantages, verify
from workbench.training.batching import micro_batches, mini_batches
from workbench.training.objective import prepare, token_loss, token_share
from workbench.training.optimiser import Optimiser


@dataclass
class StepResult:
    """What a rollout step leaves: its metrics (deterministic), its timings (seconds) and its two tables."""

    metrics: dict[str, float]
    timings: dict[str, float]
    rollouts: Rollouts


class Trainer:
    """The policy, its optimiser and its methods. `step(k)` depends on their state and on k, on nothing else."""

    def __init__(self, config: RunConfig, policy: Policy | None = None):
        self.config, training = config, config.training
        self.policy = policy or _load(config)
        self.reference = _load(config) if config.objective.kl_coefficient else None
        self.engine = NativeEngine(self.policy)
        self.methods = Composition(config.build_methods())
        task = get_task(config.task.name)
        self.max_new_tokens = config.rollout.max_new_tokens or task.max_response_tokens
        self.prompts = task.train_prompts(config.task.train_size, config.seed)
        self.optimiser = Optimiser(
            self.policy.parameters, config.optimiser, training.steps * training.updates_per_rollout
        )

    def step(self, step: int) -> StepResult:
        """Rollout step `step` (1, 2, …). Raises `FloatingPointError` when anything becomes non-finite."""
        clock = _Clock()
        prompts = self.methods.select(self._candidates(step), step)
        with clock.time("sampling"):
            rollouts = self._sample(prompts, step)
        with clock.time("verifying"):
            rollouts = assign_advantages(verify(rollouts, prompts, self.policy.tokenizer), self.methods)
        with clock.time("scoring"):
            rollouts = self._score(rollouts)
        metrics = {"step": step, **step_metrics(rollouts), **self.methods.measures()}
        with clock.time("update"):
            rollouts, applied = self._update(rollouts, step)
        metrics |= {**update_metrics(rollouts), **applied}
        self.methods.observe(metrics)
        return StepResult(metrics, clock.seconds, rollouts)

    def _candidates(self, step: int) -> list[Prompt]:
        """The step's prompts: a stateless walk through one shuffled order per epoch."""
        size, count = len(self.prompts), self.config.rollout.prompts
        places = np.arange((step - 1) * count, step * count)
        orders = {e: np.random.default_rng([self.config.seed, 1, e]).permutation(size) for e in set(places // size)}
        return [self.prompts[orders[place // size][place % size]] for place in places]

    def _sample(self, prompts: list[Prompt], step: int) -> Rollouts:
        temperature = torch.full((len(prompts),), self.config.rollout.temperature)
        temperature = self.methods.temperature(prompts, temperature)
        ids = [self.policy.encode(prompt.text) for prompt in prompts]
        stream = Stream(self.config.seed, step)
        return self.engine.generate(ids, self.config.rollout.samples, temperature, self.max_new_tokens, stream)

    @torch.no_grad()
    def _score(self, rollouts: Rollouts) -> Rollouts:
        """Attach `old_logp`, and `ref_logp` when a KL penalty needs it."""
        tokens = rollouts.tokens.with_columns(old_logp=rollouts.tokens.rollout_logp)
        if self.config.training.old_logp == "trainer":
            old_logp, entropy = self._statistics(self.policy, rollouts)
            tokens = tokens.with_columns(old_logp=old_logp, entropy=entropy)
        if self.reference is not None:
            tokens = tokens.with_columns(ref_logp=self._statistics(self.reference, rollouts)[0])
        return Rollouts(rollouts.prompts, rollouts.sequences, tokens)

    def _statistics(self, policy: Policy, rollouts: Rollouts) -> tuple[Tensor, Tensor]:
        parts = []
        for rows in micro_batches(rollouts.sequences.length, self.config.training.micro_batch_tokens):
            part = rollouts.select_sequences(rows)
            parts.append(policy.token_statistics(pack(part), part.broadcast_to_tokens(part.sequences.temperature)))
        return torch.cat([part.logp for part in parts]), torch.cat([part.entropy for part in parts])

    def _update(self, rollouts: Rollouts, step: int) -> tuple[Rollouts, dict[str, float]]:
        """N optimiser updates, one pass over the kept sequences. Adds the tokens' `logp` (NaN where not trained on) and
        their clip bounds; returns the applied losses, gradient norms and rates as means over the updates."""
        keep = self.methods.keep(rollouts)
        blank = torch.full_like(rollouts.tokens.old_logp, float("nan"))
        seen = {name: blank.clone() for name in ("logp", "clip_low", "clip_high")}
        applied: list[dict[str, float]] = []
        for rows in mini_batches(rollouts, self.config.training.updates_per_rollout, self.config.seed, step):
            rows = rows[keep[rows]]
            if len(rows) == 0:
                continue
            batch = prepare(rollouts.select_sequences(rows), self.methods, self.config.objective)
            logp, loss = self._backward(batch)
            applied.append({"loss/total": loss, **self.optimiser.step()})
            is_row = torch.zeros_like(keep)
            is_row[rows] = True
            places = rollouts.broadcast_to_tokens(is_row)
            for name, values in (
                ("logp", logp),
                ("clip_low", batch.tokens.clip_low),
                ("clip_high", batch.tokens.clip_high),
            ):
                seen[name][places] = values
        tokens = rollouts.tokens.with_columns(**seen)
        means = {key: float(np.mean([update[key] for update in applied])) for key in applied[0]} if applied else {}
        return Rollouts(rollouts.prompts, rollouts.sequences, tokens), {**means, "update/count": len(applied)}

    def _backward(self, batch: Rollouts) -> tuple[Tensor, float]:
        """Accumulate the gradients of one mini-batch; returns the tokens' log-probs [N] and the loss."""
        objective = self.config.objective
        share = token_share(batch, objective.denominator, self.max_new_tokens)
        batch = Rollouts(batch.prompts, batch.sequences, batch.tokens.with_columns(share=share))
        logps, total = [], 0.0
        for rows in micro_batches(batch.sequences.length, self.config.training.micro_batch_tokens):
            part = batch.select_sequences(rows)
            now = self.policy.token_statistics(pack(part), part.broadcast_to_tokens(part.sequences.temperature))
            loss = (part.tokens.share * token_loss(part.tokens, now.logp, now.entropy, self.methods, objective)).sum()
            loss.backward()
            logps.append(now.logp.detach())
            total += loss.item()
        if not np.isfinite(total):
            raise FloatingPointError(
                f"non-finite loss at update {self.optimiser.updates}; lower optimiser.learning_rate"
            )
        return torch.cat(logps), total


class _Clock:
    def __init__(self):
        self.seconds: dict[str, float] = {}

    @contextmanager
    def time(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[f"time/{name}"] = time.perf_counter() - start


def _load(config: RunConfig) -> Policy:
    return load_policy(config.policy.model, resolve_device(config.policy.device), config.policy.precision)


def resolve_device(device: str) -> str:
    """'auto' -> 'cuda' if there is one, else 'cpu'."""
    if device != "auto":
        return device
    return "cuda" if torch.cuda.is_available() else "cpu"
