"""One rollout step: sample, verify, give advantages, update. Knows nothing of folders or processes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from workbench import ranks
from workbench.config import RunConfig
from workbench.methods import Composition
from workbench.methods.terms import Progress
from workbench.metrics.step import change_metrics, step_metrics, update_metrics
from workbench.metrics.token_classes import classify
from workbench.policy.model import Policy, policy_from
from workbench.rollout import Engine
from workbench.tables import NonFiniteError, Rollouts, require_finite
from workbench.training.advantages import assign_advantages
from workbench.training.batching import mini_batches
from workbench.training.change import ChangeMeasure
from workbench.training.collect import Collected, Collector
from workbench.training.critic import Critic
from workbench.training.optimiser import Optimiser
from workbench.training.update import OLD, accumulate_gradient, old_columns, score_in_parts

UPDATE_COLUMNS = ("logp", "current_entropy", "ratio", "clip_low", "clip_high", "weight")
"""What an update leaves in the stored token table; NaN for tokens that were in no update."""

ON_REFERENCE = {"ref_logp", "semantic_entropy", "soft_values"}
"""Needs that take the policy the run started from."""


@dataclass
class StepResult:
    """What a rollout step leaves: its metrics (deterministic), its timings (seconds) and its two tables."""

    metrics: dict[str, float]
    timings: dict[str, float]
    rollouts: Rollouts


class Trainer:
    """The policy, its optimiser, its methods, their critic and the walk through the prompts. `step(k)` depends on their
    state and on k, on nothing else."""

    def __init__(self, config: RunConfig, policy: Policy | None = None):
        self.config, training = config, config.training
        self.policy = policy or _load(config)
        self.methods = Composition(config.build_methods())
        self.reference = self._reference() if ON_REFERENCE & self.methods.needs else None
        updates, critic, place = training.steps * training.updates_per_rollout, self.methods.critic(), _place(config)
        self.critic = Critic(self.policy, critic, updates, self.reference, place) if critic else None
        if place is not None:  # after the critic, which starts as a copy
            self.policy.divide(place)
        self.optimiser = Optimiser(self.policy.parameters, config.optimiser, updates, self.policy.precision)
        self.scores_first = self._scores_first()
        self.collector = Collector(config, self.policy, self.reference, self.methods)
        self.change = ChangeMeasure(config, self.policy)
        self.pieces = _token_texts(self.policy)
        self._class_of_id = torch.from_numpy(classify(self.pieces)).to(self.policy.device)

    def _scores_first(self) -> bool:
        """Whether log-probs are known before the updates: from the sampler, or because something reads them there. Else
        the only update's forward pass gives them, for it sees the policy as it was, and a pass over the batch is saved.
        """
        training = self.config.training
        only = training.old_logp == "trainer" and training.updates_per_rollout == 1 and self.critic is None
        return not only or "old_logp" in self.methods.needs

    def _reference(self) -> Policy:
        """The policy the run started from: the model with its adapters off, or a second copy."""
        if self.policy.adapted is not None:
            return self.policy.without_adapters()
        copy, place = _load(self.config), _place(self.config)
        if place is not None:
            copy.divide(place)
        return copy

    @property
    def engine(self) -> Engine:
        return self.collector.engine

    def step(self, step: int) -> StepResult:
        """Rollout step `step` (1, 2, …). Raises `NonFiniteError`, with the batch, when anything becomes non-finite."""
        clock = _Clock()
        progress = self.collector.begin(step)
        with clock.time("sampling"):
            collected = self.collector.collect(step)
        with clock.time("scoring"):
            rollouts = self._score(collected.rollouts)
        with clock.time("advantages"):
            rollouts = assign_advantages(rollouts, self.methods)
            self.methods.look(rollouts)
        with clock.time("measures"):
            rollouts = self.change.before(rollouts, step)
        with clock.time("update"):
            rollouts, applied = self._update(rollouts, progress)
        with clock.time("measures"):
            metrics = {"step": step, **step_metrics(self._classed(rollouts)), **_sampling(collected)}
            metrics |= {**update_metrics(rollouts), **applied, **self.methods.measures()}
            metrics = ranks.from_first(metrics)
        self.methods.observe(metrics)
        with clock.time("measures"):  # after `observe`: no method may depend on what storage chooses to measure
            rollouts = self.change.after(rollouts, step)
            metrics |= change_metrics(self._classed(rollouts))
        return StepResult(metrics, clock.seconds, rollouts)

    def _classed(self, rollouts: Rollouts) -> Rollouts:
        """With the tokens' `token_class`, which metrics read and nobody stores: it follows from `piece`."""
        return rollouts.with_tokens(token_class=self._class_of_id[rollouts.tokens.token])

    def _score(self, rollouts: Rollouts) -> Rollouts:
        """Attach `old_logp` where it is known or needed before the updates, and what methods need of reference and
        critic."""
        budget = self.config.training.micro_batch_tokens
        if self.config.training.old_logp == "rollout":
            rollouts = rollouts.with_tokens(old_logp=rollouts.tokens.rollout_logp)
            _require_sound(rollouts, "old_logp")
        else:
            rollouts = replace(rollouts, tokens=rollouts.tokens.without(*OLD))
            if self.scores_first:
                rollouts = self._with_old(rollouts)
        if "ref_logp" in self.methods.needs:
            rollouts = rollouts.with_tokens(ref_logp=score_in_parts(self.reference, rollouts, budget).logp)
            _require_sound(rollouts, "ref_logp")
        if self.critic is None:
            return rollouts
        return rollouts.with_tokens(**self.critic.columns(self.policy, rollouts, budget))

    def _with_old(self, rollouts: Rollouts) -> Rollouts:
        """With the columns `OLD`, by forward passes of the policy as it is."""
        budget = self.config.training.micro_batch_tokens
        now = score_in_parts(self.policy, rollouts, budget, with_sums=True)
        rollouts = rollouts.with_tokens(**old_columns(now))
        _require_sound(rollouts, "old_logp")
        return _with_sampled(rollouts)

    def _update(self, rollouts: Rollouts, progress: Progress) -> tuple[Rollouts, dict[str, float]]:
        """N optimiser updates, one pass over the kept sequences. Adds the tokens' `UPDATE_COLUMNS`, and `OLD` if they
        were left to the first; returns the applied losses, gradient norms and rates as means over the updates."""
        config, training = self.config, self.config.training
        keep = ranks.from_first(self.methods.keep(rollouts))
        names = UPDATE_COLUMNS if self.scores_first else UPDATE_COLUMNS + OLD
        seen = {name: torch.full_like(rollouts.tokens.advantage, float("nan")) for name in names}
        seen["update"] = torch.full_like(rollouts.tokens.sequence, -1)
        applied: list[dict[str, float]] = []
        for update, rows in enumerate(mini_batches(rollouts, training.updates_per_rollout, config.seed, progress.step)):
            rows, left = rows[keep[rows]], rows[~keep[rows]]
            if not self.scores_first and len(left):
                scored = self._with_old(rollouts.select_sequences(left)).tokens
                _put(seen, {name: scored[name] for name in OLD}, _tokens_of(rollouts, left))
            if len(rows) == 0:
                continue
            self.methods.begin(replace(progress, update=update))
            batch, loss = accumulate_gradient(
                self.policy,
                rollouts.select_sequences(rows),
                self.methods,
                config.objective,
                training.micro_batch_tokens,
                self.collector.max_new_tokens,
                self.critic,
                self.optimiser.loss_scale,
            )
            with _blaming(batch):
                applied.append({"loss/total": loss, **self.optimiser.step()})
                if self.critic is not None:
                    applied[-1] |= self.critic.update(batch, training.micro_batch_tokens)
            places = _tokens_of(rollouts, rows)
            done = batch.tokens.with_columns(weight=batch.tokens.weight * batch.tokens.mask)
            _put(seen, {name: done[name] for name in names}, places)
            seen["update"][places] = update
        self.engine.weights_changed()
        means = {key: float(np.mean([update[key] for update in applied])) for key in applied[0]} if applied else {}
        rollouts = rollouts.with_tokens(**seen)
        if not self.scores_first:
            rollouts = _with_sampled(rollouts)
        return rollouts, {**means, "update/count": len(applied)}


def _with_sampled(rollouts: Rollouts) -> Rollouts:
    """With `rollout_logp` of the responses that nobody sampled: they have no other log-probs than the policy's."""
    tokens = rollouts.tokens
    return rollouts.with_tokens(
        rollout_logp=torch.where(tokens.rollout_logp.isnan(), tokens.old_logp, tokens.rollout_logp)
    )


def _require_sound(rollouts: Rollouts, column: str) -> None:
    require_finite(rollouts, column, rollouts.tokens[column], "the model's logits are broken; check its precision")


def _tokens_of(rollouts: Rollouts, rows: Tensor) -> Tensor:
    """Mask [N] of the tokens of the sequences `rows`."""
    chosen = torch.zeros_like(rollouts.sequences.prompt, dtype=torch.bool)
    chosen[rows] = True
    return rollouts.broadcast_to_tokens(chosen)


def _put(columns: dict[str, Tensor], values: dict[str, Tensor], places: Tensor) -> None:
    for name, value in values.items():
        columns[name][places] = value


def _sampling(collected: Collected) -> dict[str, float]:
    kept = len(collected.rollouts.prompts)
    return {"sampling/rounds": collected.rounds, "sampling/groups_per_kept": collected.groups_sampled / kept}


@contextmanager
def _blaming(batch: Rollouts) -> Iterator[None]:
    """Attach the mini-batch to a complaint about numbers by something that knows only gradients."""
    try:
        yield
    except FloatingPointError as error:
        raise NonFiniteError(str(error), batch) from error


class _Clock:
    def __init__(self):
        self.seconds: dict[str, float] = {}

    @contextmanager
    def time(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[f"time/{name}"] = self.seconds.get(f"time/{name}", 0.0) + time.perf_counter() - start


def _token_texts(policy: Policy) -> list[str]:
    """Text of every token id the head can give; '' for ids past the tokenizer's own, which pad some vocabularies."""
    known = [[i] for i in range(len(policy.tokenizer))]
    texts = policy.tokenizer.batch_decode(known, clean_up_tokenization_spaces=False)
    return texts + [""] * (policy.model.get_output_embeddings().weight.shape[0] - len(texts))


def _load(config: RunConfig) -> Policy:
    """On its device; where it is going to be divided, in the memory of the machine."""
    device = resolve_device(config.policy.device) if _place(config) is None else "cpu"
    return policy_from(config.policy, device, config.seed)


def _place(config: RunConfig) -> str | None:
    """The device for this rank's part of a divided model; None if one process holds all of it."""
    if ranks.count() == 1:
        return None
    if config.policy.device not in ("auto", "cpu", "cuda"):
        raise ValueError(
            f"policy.device '{config.policy.device}' is one device, but {ranks.count()} ranks train; leave it at 'auto'"
        )
    return resolve_device(config.policy.device)


def resolve_device(device: str) -> str:
    """'auto' -> 'cuda' if there is one, else 'cpu'; of several GPUs the one that is this process's own."""
    kind = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    return f"cuda:{torch.cuda.current_device()}" if kind == "cuda" and ranks.count() > 1 else kind
