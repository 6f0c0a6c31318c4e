"""Evaluation: repeated samples on fixed prompt sets; performance is computed from the stored samples."""

from __future__ import annotations

import torch

from workbench.policy.model import Policy
from workbench.rollout import NativeEngine, Stream
from workbench.tables import Table, concatenate
from workbench.tasks import get_task
from workbench.training.advantages import verify


def evaluate(
    policy: Policy, name: str, prompts: int, samples: int, temperature: float, seed: int, step: int, batch: int = 512
) -> Table:
    """Sample `samples` responses to each of the first `prompts` prompts of set `name`, `batch` sequences at a time.

    One row per sample: step, set, prompt, sample, prompt_text, text, correct, reward, length, logp (sum over the
    response, nats), entropy (mean over its tokens, nats), finished and the task's measures.
    """
    task = get_task(name)
    questions = task.evaluation_prompts(prompts)
    per_batch = max(1, batch // samples)
    parts = []
    for first in range(0, prompts, per_batch):
        asked = questions[first : first + per_batch]
        ids = [policy.encode(prompt.text) for prompt in asked]
        stream = Stream(seed, step, f"evaluate/{name}", first)
        heat = torch.full((len(asked),), temperature)
        rollouts = NativeEngine(policy).generate(ids, samples, heat, task.max_response_tokens, stream)
        parts.append(_samples(verify(rollouts, asked, policy.tokenizer), first))
    table = concatenate(parts)
    count = len(table)
    return Table(step=torch.full((count,), step), set=[name] * count, **table)


def _samples(rollouts, first_prompt: int) -> Table:
    sequences = rollouts.sequences
    columns = {name: sequences[name] for name in sequences if name not in ("group", "temperature")}
    columns |= {
        "prompt": sequences.prompt + first_prompt,
        "logp": rollouts.sum_by_sequence(rollouts.tokens.rollout_logp),
        "entropy": rollouts.mean_by_sequence(rollouts.tokens.entropy),
    }
    first = ("prompt", "sample", "prompt_text", "text")
    return Table(**{name: columns[name] for name in [*first, *(c for c in columns if c not in first)]})
