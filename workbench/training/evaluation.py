"""Evaluation: repeated samples on fixed prompt sets; all measures are computed from the stored samples."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

import torch
from torch import Tensor

from workbench.config import TaskConfig
from workbench.policy.model import Policy
from workbench.rollout import Engine, NativeEngine, Stream, shared
from workbench.tables import Rollouts, Table, concatenate
from workbench.tasks import Prompt, get_task
from workbench.tasks.chat import ask
from workbench.training.advantages import verify
from workbench.training.prompts import prompt_entropy, reading_cautions
from workbench.training.update import score_in_parts

TOKEN_BUDGET = 16384
"""Tokens per forward when the entropy of prompts, or of responses by an engine that does not give it, is taken."""


@lru_cache(maxsize=32)
def questions(name: str, count: int) -> tuple[Prompt, ...]:
    """The first `count` prompts of an evaluation set, responses to which can be judged on this machine. Raises as
    `Task.evaluation_prompts` and `Task.require` do."""
    task = get_task(name)
    prompts = tuple(task.evaluation_prompts(count))
    task.require(prompts)
    return prompts


@dataclass(frozen=True)
class Evaluation:
    """`samples` responses to each of the first `prompts` prompts of set `name` (all of them, if there are fewer), from
    the whole vocabulary or from the nucleus `top_p`, at most `max_new_tokens` long (0: the set's own bound); `batch`
    sequences are sampled at a time.

    A sample depends on the policy and on (seed, step, set, prompt, sample) alone, so the parts can be made at
    different times and by different processes.
    """

    name: str
    prompts: int
    samples: int
    temperature: float
    seed: int
    step: int
    top_p: float = 1.0
    max_new_tokens: int = 0
    batch: int = 512
    task: TaskConfig = field(default_factory=TaskConfig)
    """How prompts are put to the policy: its templates and system prompt."""

    def check(self, policy: Policy) -> list[str]:
        """Raise where the set cannot be had, judged or read by `policy`, so that it is known before anything is
        sampled; returns cautions, one sentence each."""
        texts = ask(questions(self.name, self.prompts), self.task, policy.tokenizer)
        return reading_cautions(policy, self.name, texts)

    def sample(self, policy: Policy, engine: Engine | None = None) -> Table:
        """All parts: one row per sample. `engine` samples from `policy`; by default natively.

        Columns: step, set, prompt, sample, prompt_text, text, correct, reward, length, logp (sum over the response,
        nats, of the distribution sampled from, temperature and nucleus included), entropy (mean over its tokens, nats,
        whole vocabulary at the sampling temperature), finished, answer, the task's measures, prompt_entropy (see that
        function), temperature and top_p.
        """
        return concatenate([self.part(policy, first, engine) for first in self.starts()])

    def starts(self) -> range:
        """Number of the first prompt of each part."""
        return range(0, len(questions(self.name, self.prompts)), self._prompts_per_part)

    def part(self, policy: Policy, first: int, engine: Engine | None = None) -> Table:
        """Sample the part that begins with prompt number `first`; columns and `engine` as in `sample`."""
        asked = questions(self.name, self.prompts)[first : first + self._prompts_per_part]
        ids = [policy.encode(text) for text in ask(asked, self.task, policy.tokenizer)]
        stream = Stream(self.seed, self.step, f"evaluate/{self.name}", first)
        heat = torch.full((len(asked),), self.temperature)
        length = self.max_new_tokens or get_task(self.name).max_response_tokens
        engine = engine or shared(NativeEngine(policy))
        rollouts = engine.generate(ids, self.samples, heat, length, stream, top_p=self.top_p)
        if "entropy" not in rollouts.tokens:
            rollouts = rollouts.with_sequences(score_temperature=rollouts.sequences.temperature)
            rollouts = rollouts.with_tokens(entropy=score_in_parts(policy, rollouts, TOKEN_BUDGET).entropy)
        entropy = prompt_entropy(policy, ids, TOKEN_BUDGET)
        samples = _samples(verify(rollouts, asked, policy.tokenizer), first, entropy)
        count = len(samples)
        settings = {"temperature": torch.full((count,), self.temperature), "top_p": torch.full((count,), self.top_p)}
        return Table(step=torch.full((count,), self.step), set=[self.name] * count, **samples, **settings)

    @property
    def _prompts_per_part(self) -> int:
        return max(1, self.batch // self.samples)


def _samples(rollouts: Rollouts, first_prompt: int, entropy_of_prompt: Tensor) -> Table:
    sequences = rollouts.sequences
    left_out = ("group", "temperature", "score_temperature")
    columns = {name: sequences[name] for name in sequences if name not in left_out}
    columns |= {
        "prompt": sequences.prompt + first_prompt,
        "logp": rollouts.sum_by_sequence(rollouts.tokens.rollout_logp),
        "entropy": rollouts.mean_by_sequence(rollouts.tokens.entropy),
        "prompt_entropy": entropy_of_prompt[sequences.prompt],
    }
    first = ("prompt", "sample", "prompt_text", "text")
    return Table(**{name: columns[name] for name in [*first, *(c for c in columns if c not in first)]})
