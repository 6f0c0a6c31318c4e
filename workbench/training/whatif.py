"""What-if: the loss of a stored step under other settings, recomputed by the methods and the objective that train.

One step and first order: the stored policies stay as they were. Settings act on the tokens, ratios and log-probs that
the run had; what a changed update would have done to later updates, let alone later steps, is not in it.

    push_t = −g_t (S_t − E[S]_t) + e_t Σ_v S_v²,   g_t = −N ∂loss/∂log π_t,   e_t = −N ∂loss/∂H_t

is the entropy change of a unit step on each token's own logits (arXiv 2602.03392, Theorem 3.3, for the first term; the
second is |∂H/∂logits|², of which S_t²/π_t is an unbiased estimate from the sampled token (I)).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from workbench.config import METHODS, TASKS, RunConfig
from workbench.methods import Composition, Method, Progress
from workbench.metrics.partitions import discriminator, discriminator_gap
from workbench.metrics.stored import rollouts_from_frames
from workbench.store import Run
from workbench.tables import Rollouts
from workbench.training.batching import mini_batches
from workbench.training.objective import prepare, token_loss

NEEDED = ("old_logp", "entropy", "advantage")
NOT_STORED = {"values": "a critic's values", "soft_values": "a critic's values", "ref_logp": "ref_logp"}
"""What methods may need and a stored step lacks."""


@dataclass(frozen=True)
class Outcome:
    """What one setting does to the tokens of a step, [N] each, in the order of the stored token table."""

    advantage: Tensor
    clip_low: Tensor
    clip_high: Tensor
    weight: Tensor
    """of the surrogate; 0 where masked out of the loss"""
    clipped: Tensor
    """bool: in the loss, but without gradient through the ratio"""
    gradient: Tensor
    """g_t fp64: what the update pushes the token's log-prob by, in units of an unmasked token of weight 1"""
    entropy_gradient: Tensor
    """e_t fp64: what it pushes the token's entropy by"""
    losses: tuple[float, ...]
    """of each update, as the trainer logs them"""

    @cached_property
    def mass(self) -> dict[str, float]:
        """Σ |g_t| / N over rewarded (A > 0) and over punished (A < 0) tokens."""
        size, count = self.gradient.abs(), max(1, len(self.gradient))
        return {
            "positive": float(size[self.advantage > 0].sum()) / count,
            "negative": float(size[self.advantage < 0].sum()) / count,
        }


class WhatIf:
    """A stored step under any setting. Raises `ValueError` naming what the step lacks."""

    def __init__(self, run: Run, step: int):
        self.run, self.step, self.config = run, step, run.config
        try:
            stored = run.rollouts(step)
        except FileNotFoundError as error:
            raise ValueError("Not recorded: tokens with their log-probs; this run kept only responses.") from error
        if lacking := [name for name in NEEDED if name not in stored.tokens]:
            raise ValueError(f"Not recorded: {', '.join(lacking)}; the what-if lab needs them for every token.")
        self.rollouts = _completed(stored.sequences, stored.tokens)
        self._metrics = run.metrics
        training = self.config.training
        rows = mini_batches(self.rollouts, training.updates_per_rollout, self.config.seed, step)
        self._batches = [(part, self.rollouts.select_sequences(part), self._places(part)) for part in rows]

    @cached_property
    def actual(self) -> Outcome:
        """The step as it was trained."""
        return self.outcome(self.config)

    def outcome(self, config: RunConfig) -> Outcome:
        """The step under `config`: only its methods and objective are read. Raises `ValueError` where a method needs
        what is not stored."""
        methods = self._methods_at_step(config)
        rollouts = self._with_advantages(config, methods)
        methods.look(rollouts)
        keep = methods.keep(rollouts)
        count = len(rollouts.tokens)
        blank = torch.zeros(count, dtype=torch.float64)
        out = {name: blank.clone() for name in ("clip_low", "clip_high", "weight", "gradient", "entropy_gradient")}
        out["clipped"] = torch.zeros(count, dtype=torch.bool)
        losses = []
        for update, (rows, batch, places) in enumerate(self._batches):
            kept = keep[rows]
            if not bool(kept.all()):
                rows = rows[kept]
                batch, places = rollouts.select_sequences(rows), self._places(rows)
            elif rollouts is not self.rollouts:
                batch = rollouts.select_sequences(rows)
            if len(rows) == 0:
                continue
            methods.begin(replace(self._progress(config), update=update))
            values, loss = _differentiated(batch, methods, config, self._progress(config).max_new_tokens)
            losses.append(loss)
            for name, value in values.items():
                out[name][places] = value.to(out[name].dtype)
        return Outcome(advantage=rollouts.tokens.advantage, losses=tuple(losses), **out)

    def push(self, outcome: Outcome) -> Tensor:
        """push_t [N] fp64, nats per unit step on a logit; NaN where E[S] was not recorded."""
        tokens = self.rollouts.tokens
        if "expected_discriminator" not in tokens:
            return torch.full_like(outcome.gradient, float("nan"))
        own = discriminator(tokens).double()
        squares = own.square() / tokens.old_logp.double().exp()
        return -outcome.gradient * discriminator_gap(tokens).double() + outcome.entropy_gradient * squares

    @cached_property
    def scored(self) -> Tensor:
        """Mask [N] of tokens whose entropy after the step was measured."""
        tokens = self.rollouts.tokens
        if "entropy_after" not in tokens:
            return torch.zeros(len(tokens), dtype=torch.bool)
        return ~tokens.entropy_after.isnan()

    def _places(self, rows: Tensor) -> Tensor:
        """Indices into the token table of the sequences `rows`, in the order `select_sequences` gives."""
        lengths = self.rollouts.sequences.length
        starts = lengths.cumsum(0) - lengths
        return torch.cat([torch.arange(int(starts[r]), int(starts[r] + lengths[r])) for r in rows.tolist()] or [rows])

    def _progress(self, config: RunConfig) -> Progress:
        """Where the run stood; an epoch is taken to go through task.train_size prompts."""
        return _progress(config, self.step, int(self.rollouts.sequences.length.max()))

    def _methods_at_step(self, config: RunConfig) -> Composition:
        """The methods with the state they had, or would have had, after watching the run's steps so far."""
        methods = Composition(config.build_methods())
        for need, words in NOT_STORED.items():
            if need in methods.needs and need not in self.rollouts.tokens:
                raise ValueError(f"Not recorded: {words}; a method of this setting reads it.")
        replay(methods, config, self._metrics, self.step)
        methods.begin(self._progress(config))
        return methods

    def _with_advantages(self, config: RunConfig, methods: Composition) -> Rollouts:
        """The stored advantages where the setting's are the run's; else baseline and shaping anew, of stored
        rewards."""
        if advantage_methods(config) == advantage_methods(self.config):
            return self.rollouts
        rollouts = self.rollouts.with_sequences(advantage=methods.baseline(self.rollouts))
        return rollouts.with_tokens(advantage=methods.advantage(rollouts))


def replay(methods: Composition, config: RunConfig, metrics: pd.DataFrame, step: int) -> None:
    """Let methods watch the measures of the steps before `step`, which is all most controllers live on."""
    for row in metrics[metrics["step"] < step].to_dict("records"):
        methods.begin(_progress(config, int(row["step"]), 1))
        methods.observe(row)


def advantage_methods(config: RunConfig) -> list[dict[str, Any]]:
    """The entries of `config.methods` that give or shape advantages."""
    return [entry for entry in config.methods if overrides(entry["name"], "baseline", "advantage")]


def overrides(method: str, *hooks: str) -> bool:
    """Whether the method of this name implements one of `hooks` itself."""
    return any(getattr(METHODS[method], hook) is not getattr(Method, hook) for hook in hooks)


def _progress(config: RunConfig, step: int, longest: int) -> Progress:
    training, rollout = config.training, config.rollout
    size = config.task.train_size
    longest = getattr(TASKS.get(config.task.name), "max_response_tokens", longest)
    return Progress(
        config.seed,
        step,
        training.steps,
        epoch=(step - 1) * rollout.prompts // size + 1,
        epochs=-(-training.steps * rollout.prompts // size),
        updates=training.updates_per_rollout,
        max_new_tokens=rollout.max_new_tokens or longest,
    )


def _completed(sequences: pd.DataFrame, tokens: pd.DataFrame) -> Rollouts:
    """The stored tables with every column the objective reads; tokens that were in no update stand at old_logp."""
    rollouts = rollouts_from_frames(sequences, tokens)
    held = rollouts.tokens
    logp = torch.where(held.logp.isnan(), held.old_logp, held.logp) if "logp" in held else held.old_logp
    now = held.current_entropy if "current_entropy" in held else held.entropy
    rollout_logp = held.rollout_logp if "rollout_logp" in held else held.old_logp
    rollouts = rollouts.with_tokens(
        logp=logp, current_entropy=torch.where(now.isnan(), held.entropy, now), rollout_logp=rollout_logp
    )
    if "sample" not in rollouts.sequences:
        rollouts = rollouts.with_sequences(sample=torch.arange(len(rollouts.sequences)))
    prompts = int(rollouts.sequences.prompt.max()) + 1 if "prompt" in rollouts.sequences else 1
    return Rollouts([torch.zeros(0, dtype=torch.int64)] * prompts, rollouts.sequences, rollouts.tokens)


def _differentiated(
    batch: Rollouts, methods: Composition, config: RunConfig, longest: int
) -> tuple[Mapping[str, Tensor], float]:
    """The constants of a mini-batch, and its loss differentiated in each token's log-prob and entropy."""
    batch = prepare(batch, methods, config.objective, longest)
    tokens = batch.tokens
    logp, entropy = (values.clone().requires_grad_() for values in (tokens.logp, tokens.current_entropy))
    ratio = methods.ratio(tokens, logp)
    loss = (tokens.share * token_loss(tokens, ratio, logp, entropy, methods)).sum()
    found = torch.autograd.grad(loss, (logp, entropy), allow_unused=True)
    count = len(tokens)
    gradient, entropy_gradient = (
        torch.zeros(count, dtype=torch.float64) if g is None else -count * g.double() for g in found
    )
    weight = tokens.weight * tokens.mask
    dead = tokens.mask & (weight != 0) & (tokens.advantage != 0) & (gradient == 0)
    values = {
        "clip_low": tokens.clip_low,
        "clip_high": tokens.clip_high,
        "weight": weight,
        "clipped": dead,
        "gradient": gradient,
        "entropy_gradient": entropy_gradient,
    }
    return values, float(np.float64(loss.item()))
