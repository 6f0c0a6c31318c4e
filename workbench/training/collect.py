"""From training prompts to a verified rollout batch: prompts in play, candidates, selection, sampling rounds."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from workbench import ranks
from workbench.config import RunConfig
from workbench.methods import Composition
from workbench.methods.terms import Progress
from workbench.metrics.diversity import semantic_entropy
from workbench.policy.model import Policy
from workbench.rollout import NativeEngine, Stream, make_engine, shared
from workbench.tables import Rollouts, Table, concatenate, token_index
from workbench.tasks import Prompt, Task, get_task
from workbench.tasks.chat import ask
from workbench.training.advantages import verify
from workbench.training.prompts import PromptWalk, prompt_perplexity, reading_cautions
from workbench.training.subsets import kept_prompts

SEMANTIC_SAMPLES = 8
"""Samples of the initial policy per training prompt for its semantic entropy (arXiv 2512.04359 does not say; the
training group's size there)."""


CHECKED = 256
"""Training prompts on which it is tried whether the policy can read them."""


@dataclass
class Collected:
    """A rollout batch and how it came about: sampling rounds, and groups sampled."""

    rollouts: Rollouts
    rounds: int
    groups_sampled: int


class Collector:
    """Draws prompts and samples responses as the methods ask; its state is the walk through the training prompts."""

    def __init__(self, config: RunConfig, policy: Policy, initial: Policy | None, methods: Composition):
        self.config, self.policy, self.methods = config, policy, methods
        task = get_task(config.task.name)
        self.max_new_tokens = config.rollout.max_new_tokens or task.max_response_tokens
        self.engine = make_engine(config.rollout, policy)
        self.prompts = self._training_prompts(task)
        self.walk = PromptWalk(len(self.prompts), config.seed)
        self.table = Table(id=torch.arange(len(self.prompts)), text=[prompt.text for prompt in self.prompts])
        if "semantic_entropy" in methods.needs:
            self.table = self.table.with_columns(semantic_entropy=self._semantic_entropy(initial))

    def cautions(self) -> list[str]:
        """What the training prompts lose on their way to the policy, one sentence each."""
        name, few = self.config.task.name, self.prompts[:CHECKED]
        return reading_cautions(self.policy, name, ask(few, self.config.task, self.policy.tokenizer))

    def begin(self, step: int) -> Progress:
        """Tell the methods where the run stands and put the prompts they ask for in play."""
        rollout, training = self.config.rollout, self.config.training
        per_step = self.methods.candidates(rollout.prompts)
        epochs = math.ceil(training.steps * per_step / len(self.prompts))
        start = Progress(
            self.config.seed,
            step,
            training.steps,
            epoch=1,
            epochs=epochs,
            updates=training.updates_per_rollout,
            max_new_tokens=self.max_new_tokens,
        )
        self.methods.begin(start)
        self.walk.enter(self.methods.pool(self.table))
        progress = replace(start, epoch=self.walk.epoch, epochs=max(epochs, self.walk.epoch))
        self.methods.begin(progress)
        return progress

    def collect(self, step: int) -> Collected:
        """The step's verified rollouts: `rollout.prompts` groups, the accepted ones first; groups that were not
        accepted fill up what `Method.rounds` rounds left open."""
        wanted, parts, accepted, rounds = self.config.rollout.prompts, [], [], 0
        while rounds < self.methods.rounds() and sum(len(groups) for groups in accepted) < wanted:
            part = self._round(step, wanted * rounds)
            accepted.append(ranks.from_first(part.sequences.group[self.methods.accept(part)].unique()))
            parts.append(part)
            rounds += 1
        sampled = rounds * wanted
        if rounds == 1 and len(accepted[0]) == wanted:
            return Collected(parts[0], 1, sampled)
        order = [(number, group) for number, groups in enumerate(accepted) for group in groups.tolist()]
        chosen = set(order)
        order += [(n, g) for n, part in enumerate(parts) for g in range(len(part.prompts)) if (n, g) not in chosen]
        return Collected(_joined(parts, sorted(order[:wanted])), rounds, sampled)

    def _round(self, step: int, first_prompt: int) -> Rollouts:
        prompts = self._draw()
        asked = [self.prompts[i] for i in prompts.id.tolist()]
        rollout = self.config.rollout
        temperature = self.methods.temperature(prompts, torch.full((len(asked),), rollout.temperature))
        stream = Stream(self.config.seed, step, "train", first_prompt)
        alternatives = self.config.storage.alternatives if self.config.keeps_rollouts(step) else 0
        rollouts = self._sample(self.policy, asked, temperature, stream, alternatives=alternatives)
        prompt_id = prompts.id.to(rollouts.sequences.prompt.device)[rollouts.sequences.prompt]
        base = torch.full_like(rollouts.sequences.temperature, rollout.temperature)
        at_base = self.config.training.score_temperature == "base"
        rollouts = rollouts.with_sequences(
            prompt_id=prompt_id, score_temperature=base if at_base else rollouts.sequences.temperature
        )
        rollouts = verify(rollouts, asked, self.policy.tokenizer)
        replaced = self.methods.inject(rollouts)
        if not replaced:
            return rollouts
        rollouts = _with_responses(rollouts, replaced, self.policy)
        longest = int(rollouts.sequences.length.max())
        if longest > self.max_new_tokens:
            raise ValueError(
                f"an injected response has {longest} tokens, the longest response allowed {self.max_new_tokens}; raise "
                "rollout.max_new_tokens or leave it out"
            )
        return verify(rollouts, asked, self.policy.tokenizer)

    def _draw(self) -> Table:
        """The prompts of one sampling round, out of the candidates."""
        wanted = self.config.rollout.prompts
        rows = torch.tensor(self.walk.take(self.methods.candidates(wanted)))
        candidates = self.table.select(rows)
        if "prompt_perplexity" in self.methods.needs:
            ids = self._encoded([self.prompts[i] for i in candidates.id.tolist()])
            perplexity = prompt_perplexity(self.policy, ids, self.config.training.micro_batch_tokens)
            candidates = candidates.with_columns(perplexity=perplexity.cpu())
        chosen = candidates.select(ranks.from_first(self.methods.select(candidates)))
        if len(chosen) != wanted:
            raise ValueError(f"the methods selected {len(chosen)} prompts, rollout.prompts is {wanted}")
        return chosen

    def _sample(self, policy: Policy, asked: list[Prompt], temperature: Tensor, stream: Stream, **options) -> Rollouts:
        rollout = self.config.rollout
        engine = self.engine if policy is self.policy else shared(NativeEngine(policy))
        return engine.generate(
            self._encoded(asked),
            options.get("samples", rollout.samples),
            temperature,
            self.max_new_tokens,
            stream,
            top_p=rollout.top_p,
            discriminator=True,
            alternatives=options.get("alternatives", 0),
        )

    def _encoded(self, asked: list[Prompt]) -> list[Tensor]:
        """Token ids of each prompt as the policy reads it."""
        return [self.policy.encode(text) for text in ask(asked, self.config.task, self.policy.tokenizer)]

    def _training_prompts(self, task: Task) -> list[Prompt]:
        """The task's training prompts, or the subset of them that `task.subset` keeps."""
        prompts = task.train_prompts(self.config.task.train_size, self.config.seed)
        if not prompts:
            raise ValueError(f"task '{task.name}' has no training prompts")
        task.require(prompts)
        if self.config.task.subset.kind == "all":
            return prompts
        rows = kept_prompts(
            self.config, self.policy, self._encoded(prompts), lambda: self._pass_rates(self.policy, prompts)
        )
        return [prompts[row] for row in ranks.from_first(rows)]

    def _semantic_entropy(self, initial: Policy) -> Tensor:
        """[M] nats, over answers of the initial policy; sampled once, before training."""
        sampled = self._sampled_once(initial, self.prompts, SEMANTIC_SAMPLES, "semantic entropy")
        given = [answer for sequences in sampled for answer in sequences.answer]
        starts = range(0, len(given), SEMANTIC_SAMPLES)
        return torch.tensor([semantic_entropy(given[first : first + SEMANTIC_SAMPLES]) for first in starts])

    def _pass_rates(self, initial: Policy, prompts: list[Prompt]) -> np.ndarray:
        """[P] share of `task.subset.samples` responses of the initial policy that are correct."""
        samples = self.config.task.subset.samples
        parts = [part.correct.cpu() for part in self._sampled_once(initial, prompts, samples, "pass rate")]
        return torch.cat(parts).double().view(-1, samples).mean(1).numpy()

    def _sampled_once(self, policy: Policy, prompts: list[Prompt], samples: int, purpose: str) -> Iterator[Table]:
        """Verified `samples` responses to each prompt, prompt by prompt, in batches."""
        per_batch = max(1, 512 // samples)
        for first in range(0, len(prompts), per_batch):
            asked = prompts[first : first + per_batch]
            heat = torch.full((len(asked),), self.config.rollout.temperature)
            sampled = self._sample(policy, asked, heat, Stream(self.config.seed, 0, purpose, first), samples=samples)
            yield verify(sampled, asked, policy.tokenizer).sequences


def _joined(parts: list[Rollouts], groups: list[tuple[int, int]]) -> Rollouts:
    """One batch of the given (part, group) pairs, renumbered in their order."""
    picked = []
    for new, (number, group) in enumerate(groups):
        part = parts[number].select_sequences(parts[number].sequences.group == group)
        column = torch.full_like(part.sequences.group, new)
        picked.append(part.with_sequences(prompt=column, group=column))
    sequences = concatenate([part.sequences for part in picked])
    tokens = concatenate([part.tokens for part in picked]).with_columns(sequence=token_index(sequences.length)[0])
    return Rollouts([parts[number].prompts[group] for number, group in groups], sequences, tokens)


def _with_responses(rollouts: Rollouts, texts: dict[int, str], policy: Policy) -> Rollouts:
    """Rollouts with the responses at rows `texts` replaced and marked `offline`; what the sampler measured of a token
    becomes NaN there, or −1 if it is a token's number."""
    written = {row: _response_ids(text, policy) for row, text in texts.items()}
    length = rollouts.sequences.length.clone()
    offline = torch.zeros_like(rollouts.sequences.finished)
    for row, ids in written.items():
        length[row], offline[row] = len(ids), True

    def replaced(name: str) -> Tensor:
        parts = list(rollouts.tokens[name].split(rollouts.sequences.length.tolist()))
        for row, ids in written.items():
            unknown = float("nan") if parts[row].is_floating_point() else -1
            parts[row] = ids if name == "token" else parts[row].new_full(ids.shape, unknown)
        return torch.cat(parts)

    sequence, position = token_index(length)
    columns = {name: replaced(name) for name in rollouts.tokens if name not in ("sequence", "position")}
    finished = rollouts.sequences.finished | offline
    sequences = rollouts.sequences.with_columns(length=length, finished=finished, offline=offline)
    return Rollouts(rollouts.prompts, sequences, Table(sequence=sequence, position=position, **columns))


def _response_ids(text: str, policy: Policy) -> Tensor:
    """Tokens of a complete response: the end mark is added unless the text ends with it."""
    ids = policy.encode(text)
    return ids if int(ids[-1]) in policy.eos_ids else torch.cat([ids, ids.new_tensor(policy.eos_ids[:1])])
