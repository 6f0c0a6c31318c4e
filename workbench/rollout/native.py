"""The native engine: batched sampling with a KV cache from the trainer's own weights, on any torch device.

Samples of a prompt that have said the same so far are one branch: the model reads their common past once, and each
draws its next token for itself. So the work is that of the distinct prefixes, which become few as entropy falls.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from workbench.policy.attention import PackedAttention, additive_mask, masked_attention
from workbench.policy.head import chunks, distribution, elements_on
from workbench.policy.model import Policy
from workbench.policy.packing import PackedBatch
from workbench.rollout.streams import Stream, UniformBlocks
from workbench.tables import NonFiniteError, Rollouts, Table, token_index

COMPACT_BELOW = 0.8
"""Ended branches leave the batch when fewer than this share goes on: copying the cache costs a decode step."""


class NativeEngine:
    """Samples from a `Policy` in place: no weight copy, so there is nothing to synchronise after an update. A policy
    divided among ranks is whole on each while it samples."""

    def __init__(self, policy: Policy):
        self.policy = policy

    def generate(
        self,
        prompts: list[Tensor],
        samples: int,
        temperature: Tensor,
        max_new_tokens: int,
        stream: Stream,
        *,
        top_p: float = 1.0,
        discriminator: bool = False,
        alternatives: int = 0,
    ) -> Rollouts:
        """Sample `samples` responses to each of P prompts; from the whole vocabulary, or from the nucleus `top_p`.

        prompts: P tensors of token ids; temperature: [P] > 0. Returns S = P·samples sequences, prompt by prompt, with
        `prompt, sample, group, length, temperature, finished`, and tokens (fp32, nats) with `rollout_logp` of the
        distribution sampled from, nucleus included, `entropy` of the whole vocabulary, if `discriminator`,
        `expected_discriminator` (arXiv 2602.03392), and `top1_token`, `top1_logp`, … of the `alternatives` likeliest
        tokens under the same distribution. Raises `NonFiniteError`, naming prompt and sample and with what was sampled
        so far, on a non-finite log-prob.
        """
        with self.policy.whole(), torch.inference_mode():
            state = _Generation(self.policy, prompts, samples, temperature, max_new_tokens, stream)
            state.top_p, state.alternatives = top_p, alternatives
            if discriminator:
                state.columns["expected_discriminator"] = torch.zeros_like(state.columns["entropy"])
            for rank in range(1, alternatives + 1):
                state.columns[f"top{rank}_token"] = torch.zeros_like(state.token)
                state.columns[f"top{rank}_logp"] = torch.zeros_like(state.columns["entropy"])
            while state.step():
                pass
        return state.rollouts()

    def weights_changed(self) -> None:
        """Nothing to do: it reads the policy's weights where they are."""

    def close(self) -> None:
        """Nothing to do: its caches end with each call."""


class _Cache:
    """Keys and values per layer, [slots, Hkv, columns, D]: prompt columns (padded on the right), then response columns.

    A slot holds one branch. There is room for as many as there are sequences; the first are in use.
    """

    def __init__(self, prompt_lengths: Tensor, sequences: int, max_new_tokens: int):
        self.prompt_columns = int(prompt_lengths.max())
        self.columns = self.prompt_columns + max_new_tokens
        self.room = sequences
        self.used = self.prompt_columns
        self.layers: dict[int, tuple[Tensor, Tensor]] = {}
        column = torch.arange(self.prompt_columns, device=prompt_lengths.device)
        visible = column < prompt_lengths.unsqueeze(1)
        self.hidden_columns = None if bool(visible.all()) else ~visible

    def store_prompts(self, layer: int, key: Tensor, value: Tensor) -> None:
        """key, value [P, Lp, Hkv, D] from the prefill: the first branches."""
        self.layers[layer] = tuple(self._allocate(x) for x in (key, value))

    def _allocate(self, prompts: Tensor) -> Tensor:
        count, columns, heads, dim = prompts.shape
        out = prompts.new_empty(self.room, heads, self.columns, dim)
        out[:count, :, :columns] = prompts.transpose(1, 2)
        return out

    def copy(self, source: Tensor, target: Tensor) -> None:
        """Slots `target` begin as copies of the slots `source`."""
        for tensors in self.layers.values():
            for held in tensors:
                held[target, :, : self.used] = held[source, :, : self.used]

    def keep(self, slots: Tensor, room: int) -> None:
        """Slots `slots` become the first ones, with room for `room` in all."""
        self.room = room
        self.layers = {layer: tuple(self._moved(held, slots) for held in pair) for layer, pair in self.layers.items()}

    def _moved(self, held: Tensor, slots: Tensor) -> Tensor:
        out = held.new_empty(self.room, *held.shape[1:])
        out[: len(slots), :, : self.used] = held[slots, :, : self.used]
        return out

    def mask(self, prompt: Tensor, dtype: torch.dtype) -> Tensor | None:
        """What to add to scores [b, 1, 1, used + 1] of branches of the prompts `prompt` [b]; None for prompts of equal
        length, which hide nothing."""
        if self.hidden_columns is None:
            return None
        own = self.used + 1 - self.prompt_columns
        visible = torch.nn.functional.pad(~self.hidden_columns[prompt], (0, own), value=True)
        return additive_mask(visible[:, None, None, :], dtype)


class _PrefillAttention(PackedAttention):
    """Packed attention over prompts that also fills the cache."""

    def __init__(self, batch: PackedBatch, dtype: torch.dtype, cache: _Cache):
        super().__init__(batch, dtype)
        self.cache = cache

    def attend(self, layer, query, key, value, scaling):
        rows = (x.transpose(1, 2).reshape(x.shape[2], -1) for x in (key, value))
        grids = (self.prompts.split(x)[0] for x in rows)
        self.cache.store_prompts(layer, *(grid.unflatten(-1, (-1, query.shape[-1])) for grid in grids))
        return super().attend(layer, query, key, value, scaling)


class _DecodeAttention:
    """One new token per branch against the cache."""

    def __init__(self, cache: _Cache, prompt: Tensor, dtype: torch.dtype):
        self.cache, self.mask = cache, cache.mask(prompt, dtype)

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
        """query [b, H, 1, D], key/value [b, Hkv, 1, D] -> [b, 1, H, D]"""
        keys, values = (held[: len(query)] for held in self.cache.layers[layer])
        column = self.cache.used
        keys[:, :, column : column + 1] = key
        values[:, :, column : column + 1] = value
        keys, values = keys[:, :, : column + 1], values[:, :, : column + 1]
        grouped = query.unflatten(1, (keys.shape[1], -1)).squeeze(3)
        out = masked_attention(grouped, keys, values, self.mask, scaling)
        return out.flatten(1, 2).unsqueeze(1)


def draw(
    logits: Tensor,
    uniform: np.ndarray,
    branch: Tensor,
    top_p: float = 1.0,
    discriminator: bool = False,
    alternatives: int = 0,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Inverse-CDF sampling of logits [b, V] of branches for sequences of the branches `branch` [n] with uniforms [n] in
    [0, 1): tokens [n] and their columns [n], see `NativeEngine.generate`. `logits` is overwritten.

    The cumulative sum is fp64, so that rare tokens at the end of a large vocabulary keep their probability.
    """
    probs, shifted, log_norm, entropy = distribution(logits)
    drawn_from = probs if top_p == 1 else nucleus(probs, top_p)
    cumulative = drawn_from.double().cumsum(-1)
    mass = cumulative[:, -1]
    threshold = torch.from_numpy(uniform).to(logits.device) * mass[branch]
    token = _search(cumulative, threshold, branch).clamp_(max=logits.shape[1] - 1)
    log_norm_drawn = log_norm if top_p == 1 else log_norm + mass.log().float()
    columns = {"rollout_logp": shifted[branch, token] - log_norm_drawn[branch], "entropy": entropy[branch]}
    if discriminator:
        squares = probs * probs
        expected = squares.sum(-1) * (entropy - log_norm) + torch.linalg.vecdot(squares, shifted)
        columns["expected_discriminator"] = expected[branch]
    if alternatives:
        prob, top = drawn_from.topk(alternatives, dim=-1)
        logp = (shifted.gather(1, top) - log_norm_drawn.unsqueeze(1)).masked_fill(prob == 0, -torch.inf)
        for rank in range(alternatives):
            columns[f"top{rank + 1}_token"], columns[f"top{rank + 1}_logp"] = top[branch, rank], logp[branch, rank]
    return token, columns


def _search(cumulative: Tensor, threshold: Tensor, branch: Tensor) -> Tensor:
    """First place [n] where row branch[n] of `cumulative` [b, V] exceeds threshold[n]: a grid [b, most sequences of a
    branch] of thresholds, so that no row is copied for each of its sequences."""
    order = branch.argsort(stable=True)
    count = torch.bincount(branch, minlength=len(cumulative))
    row = branch[order]
    column = torch.arange(len(row), device=row.device) - (count.cumsum(0) - count)[row]
    grid = threshold.new_zeros(len(cumulative), int(count.max()))
    grid[row, column] = threshold[order]
    found = torch.searchsorted(cumulative, grid, right=True)
    token = torch.empty_like(branch)
    token[order] = found[row, column]
    return token


def nucleus(probs: Tensor, top_p: float) -> Tensor:
    """probs [n, V] with all but the likeliest tokens set to 0: the fewest that hold at least `top_p`."""
    ordered, index = probs.sort(dim=-1, descending=True, stable=True)
    before = ordered.double().cumsum(-1) - ordered
    return torch.zeros_like(probs).scatter_(-1, index, ordered.masked_fill(before >= top_p, 0.0))


class _Generation:
    """State of one `generate` call. Sequences [n] keep their places; branches [b], the distinct prefixes of those that
    go on, hold the slots 0 … b − 1 of the cache, some of which may have ended."""

    def __init__(self, policy, prompts, samples, temperature, max_new_tokens, stream):
        self.policy, self.prompts, self.samples = policy, prompts, samples
        self.max_new_tokens, self.position = max_new_tokens, 0
        count, device = len(prompts) * samples, policy.device
        self.temperature = temperature.to(device, torch.float32)
        self.uniforms = UniformBlocks(stream, len(prompts), samples)
        self.vocabulary = len(policy.model.get_output_embeddings().weight)
        self.eos = torch.tensor(policy.eos_ids, device=device)
        self.rows = torch.arange(count, device=device)
        """sequences that go on"""
        self.prompt = torch.arange(len(prompts), device=device)
        """prompt of each slot"""
        self.branch = self.prompt.repeat_interleave(samples)
        """slot of each of `rows`"""
        self.length = torch.zeros(count, dtype=torch.int64, device=device)
        self.finished = torch.zeros(count, dtype=torch.bool, device=device)
        self.token = torch.zeros(count, max_new_tokens, dtype=torch.int64, device=device)
        self.columns = {name: torch.zeros(count, max_new_tokens, device=device) for name in ("rollout_logp", "entropy")}
        self.top_p, self.alternatives = 1.0, 0
        self.prompt_lengths = torch.tensor([len(p) for p in prompts], device=device)
        self._prefill()

    def _prefill(self) -> None:
        lengths, ids = self.prompt_lengths, torch.cat(self.prompts)
        _, positions = token_index(lengths)
        none = torch.zeros(0, dtype=torch.int64, device=ids.device)
        batch = PackedBatch(ids, positions, lengths, none, none, none, none)
        self.cache = _Cache(lengths, len(self.rows), self.max_new_tokens)
        context = _PrefillAttention(batch, self.policy.precision, self.cache)
        hidden = self.policy.hidden(ids.unsqueeze(0), positions.unsqueeze(0), context).squeeze(0)
        self.hidden = hidden[lengths.cumsum(0) - 1]

    def step(self) -> bool:
        """Draw one token for every sequence that goes on; True while some sequence still does."""
        token = self._draw()
        self.length[self.rows] += 1
        self.position += 1
        ended = torch.isin(token, self.eos)
        self.finished[self.rows[ended]] = True
        self.rows, self.branch, token = self.rows[~ended], self.branch[~ended], token[~ended]
        if len(self.rows) == 0 or self.position == self.max_new_tokens:
            return False
        self._decode(self._branch(token))
        return True

    def _draw(self) -> Tensor:
        """The next token of each of `rows`, its columns put down; as many branches at a time as the head takes rows."""
        uniform = self.uniforms.at(self.position, self.rows.cpu().numpy())
        discriminator = "expected_discriminator" in self.columns
        for part in chunks(len(self.hidden), max(1, elements_on(self.hidden.device)[0] // self.vocabulary)):
            within = ((self.branch >= part.start) & (self.branch < part.stop)).nonzero().squeeze(1)
            rows, branch = self.rows[within], self.branch[within] - part.start
            logits = self.policy.logits(self.hidden[part]).div_(self.temperature[self.prompt[part]].unsqueeze(1))
            token, drawn = draw(
                logits, uniform[within.cpu().numpy()], branch, self.top_p, discriminator, self.alternatives
            )
            self._refuse_non_finite(rows, drawn["rollout_logp"])
            self.token[rows, self.position] = token
            for name, column in self.columns.items():
                column[rows, self.position] = drawn[name]
        return self.token[self.rows, self.position]

    def _branch(self, token: Tensor) -> Tensor:
        """Put every distinct continuation of a branch into a slot of its own: the first stays where its parent is, the
        others take ended slots, then new ones. Returns the token of each slot; that of an ended one means nothing."""
        children, child = torch.unique(self.branch * self.vocabulary + token, return_inverse=True)
        slot, tokens = children // self.vocabulary, children % self.vocabulary
        moves = torch.zeros_like(slot, dtype=torch.bool)
        moves[1:] = slot[1:] == slot[:-1]
        slots = len(self.prompt)
        if parents := slot[moves].tolist():
            ended = torch.ones(slots, dtype=torch.bool, device=slot.device).index_fill_(0, slot, False)
            fresh = torch.arange(slots, slots + len(parents), device=slot.device)
            source, target = slot[moves], torch.cat([ended.nonzero().squeeze(1), fresh])[: len(parents)]
            self.cache.copy(source, target)
            slots = max(slots, int(target.max()) + 1)
            prompt = self.prompt[source]
            self.prompt = torch.nn.functional.pad(self.prompt, (0, slots - len(self.prompt)))
            self.prompt[target] = prompt
            slot[moves] = target
        if len(children) < COMPACT_BELOW * slots:
            self.cache.keep(slot, len(self.rows))
            self.prompt, self.branch = self.prompt[slot], child
            return tokens
        self.branch = slot[child]
        return tokens.new_zeros(slots).index_copy_(0, slot, tokens)

    def _decode(self, token: Tensor) -> None:
        context = _DecodeAttention(self.cache, self.prompt, self.policy.precision)
        position = self.prompt_lengths[self.prompt] + self.position - 1
        self.hidden = self.policy.hidden(token.unsqueeze(1), position.unsqueeze(1), context).squeeze(1)
        self.cache.used += 1

    def _refuse_non_finite(self, rows: Tensor, logp: Tensor) -> None:
        bad = ~torch.isfinite(logp)
        if bool(bad.any()):
            row = int(rows[bad][0])
            raise NonFiniteError(
                f"non-finite log-prob while sampling prompt {row // self.samples}, sample {row % self.samples}, "
                f"position {self.position}: the policy's logits are broken (lower the learning rate or check the "
                "model)",
                self.rollouts(),
            )

    def rollouts(self) -> Rollouts:
        """The result as ordinary tensors: those made in inference mode may not take part in training."""
        device, length = self.length.device, self.length.clone()
        prompt = torch.arange(len(self.prompts), device=device).repeat_interleave(self.samples)
        sequences = Table(
            prompt=prompt,
            sample=torch.arange(len(prompt), device=device) % self.samples,
            group=prompt,
            length=length,
            temperature=self.temperature.repeat_interleave(self.samples),
            finished=self.finished.clone(),
        )
        sequence, position = token_index(length)
        tokens = Table(
            sequence=sequence,
            position=position,
            token=self.token[sequence, position],
            **{name: column[sequence, position] for name, column in self.columns.items()},
        )
        return Rollouts(self.prompts, sequences, tokens)
