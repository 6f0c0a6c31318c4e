"""The native engine: batched sampling with a KV cache from the trainer's own weights, on any torch device."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from workbench.policy.attention import PackedAttention, additive_mask, masked_attention
from workbench.policy.head import distribution
from workbench.policy.model import Policy
from workbench.policy.packing import PackedBatch
from workbench.rollout.streams import Stream, UniformBlocks
from workbench.tables import NonFiniteError, Rollouts, Table, token_index

COMPACT_BELOW = 0.8
"""Finished sequences leave the batch when fewer than this share goes on: copying the cache costs a decode step."""


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
    ) -> Rollouts:
        """Sample `samples` responses to each of P prompts; from the whole vocabulary, or from the nucleus `top_p`.

        prompts: P tensors of token ids; temperature: [P] > 0. Returns S = P·samples sequences, prompt by prompt, with
        `prompt, sample, group, length, temperature, finished`, and tokens (fp32, nats) with `rollout_logp` of the
        distribution sampled from, nucleus included, `entropy` of the whole vocabulary, and, if `discriminator`,
        `expected_discriminator` (arXiv 2602.03392). Raises `NonFiniteError`, naming prompt and sample and with what was
        sampled so far, on a non-finite log-prob.
        """
        with self.policy.whole(), torch.inference_mode():
            state = _Generation(self.policy, prompts, samples, temperature, max_new_tokens, stream)
            state.top_p = top_p
            if discriminator:
                state.columns["expected_discriminator"] = torch.zeros_like(state.columns["entropy"])
            while state.step():
                pass
        return state.rollouts()

    def weights_changed(self) -> None:
        """Nothing to do: it reads the policy's weights where they are."""

    def close(self) -> None:
        """Nothing to do: its caches end with each call."""


class _Cache:
    """Keys and values per layer, [n, Hkv, capacity, D]: prompt columns (padded on the right), then response columns."""

    def __init__(self, prompt_lengths: Tensor, samples: int, max_new_tokens: int):
        self.prompt_columns = int(prompt_lengths.max())
        self.capacity = self.prompt_columns + max_new_tokens
        self.samples = samples
        self.used = self.prompt_columns
        self.layers: dict[int, tuple[Tensor, Tensor]] = {}
        column = torch.arange(self.prompt_columns, device=prompt_lengths.device)
        visible = (column < prompt_lengths.unsqueeze(1)).repeat_interleave(samples, 0)
        self.hidden_columns = None if bool(visible.all()) else ~visible

    def store_prompts(self, layer: int, key: Tensor, value: Tensor) -> None:
        """key, value [P, Lp, Hkv, D] from the prefill, repeated for every sample."""
        self.layers[layer] = tuple(self._allocate(x) for x in (key, value))

    def _allocate(self, prompts: Tensor) -> Tensor:
        count, columns, heads, dim = prompts.shape
        out = prompts.new_zeros(count * self.samples, heads, self.capacity, dim)
        out[:, :, :columns] = prompts.transpose(1, 2).repeat_interleave(self.samples, 0)
        return out

    def keep(self, rows: Tensor) -> None:
        for layer, (key, value) in self.layers.items():
            self.layers[layer] = (key[rows], value[rows])
        if self.hidden_columns is not None:
            self.hidden_columns = self.hidden_columns[rows]

    def mask(self, dtype: torch.dtype) -> Tensor | None:
        """What to add to scores [n, 1, 1, used + 1]; None for prompts of equal length, which hide nothing."""
        if self.hidden_columns is None:
            return None
        visible = torch.nn.functional.pad(~self.hidden_columns, (0, self.used + 1 - self.prompt_columns), value=True)
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
    """One new token per sequence against the cache."""

    def __init__(self, cache: _Cache, dtype: torch.dtype):
        self.cache, self.mask = cache, cache.mask(dtype)

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
        """query [n, H, 1, D], key/value [n, Hkv, 1, D] -> [n, 1, H, D]"""
        keys, values = self.cache.layers[layer]
        column = self.cache.used
        keys[:, :, column : column + 1] = key
        values[:, :, column : column + 1] = value
        keys, values = keys[:, :, : column + 1], values[:, :, : column + 1]
        grouped = query.unflatten(1, (keys.shape[1], -1)).squeeze(3)
        out = masked_attention(grouped, keys, values, self.mask, scaling)
        return out.flatten(1, 2).unsqueeze(1)


def draw(
    logits: Tensor, uniform: np.ndarray, top_p: float = 1.0, discriminator: bool = False
) -> tuple[Tensor, dict[str, Tensor]]:
    """Inverse-CDF sampling of logits [n, V] with uniforms [n] in [0, 1): tokens [n] and their columns [n], see
    `NativeEngine.generate`.

    The cumulative sum is fp64, so that rare tokens at the end of a large vocabulary keep their probability.
    """
    probs, shifted, log_norm, entropy = distribution(logits)
    drawn_from = probs if top_p == 1 else nucleus(probs, top_p)
    cumulative = drawn_from.double().cumsum(-1)
    mass = cumulative[:, -1]
    threshold = torch.from_numpy(uniform).to(logits.device) * mass
    token = torch.searchsorted(cumulative, threshold.unsqueeze(1), right=True).squeeze(1)
    token.clamp_(max=logits.shape[1] - 1)
    logp = shifted.gather(1, token.unsqueeze(1)).squeeze(1) - log_norm
    columns = {"rollout_logp": logp if top_p == 1 else logp - mass.log().float(), "entropy": entropy}
    if discriminator:
        squares = probs * probs
        columns["expected_discriminator"] = squares.sum(-1) * (entropy - log_norm) + torch.linalg.vecdot(
            squares, shifted
        )
    return token, columns


def nucleus(probs: Tensor, top_p: float) -> Tensor:
    """probs [n, V] with all but the likeliest tokens set to 0: the fewest that hold at least `top_p`."""
    ordered, index = probs.sort(dim=-1, descending=True, stable=True)
    before = ordered.double().cumsum(-1) - ordered
    return torch.zeros_like(probs).scatter_(-1, index, ordered.masked_fill(before >= top_p, 0.0))


class _Generation:
    """State of one `generate` call; `rows` are the sequences still going."""

    def __init__(self, policy, prompts, samples, temperature, max_new_tokens, stream):
        self.policy, self.prompts, self.samples = policy, prompts, samples
        self.max_new_tokens, self.position = max_new_tokens, 0
        count, device = len(prompts) * samples, policy.device
        self.temperature = temperature.to(device, torch.float32).repeat_interleave(samples)
        self.uniforms = UniformBlocks(stream, len(prompts), samples)
        self.eos = torch.tensor(policy.eos_ids, device=device)
        self.rows = torch.arange(count, device=device)
        self.alive = torch.ones(count, dtype=torch.bool, device=device)
        self.length = torch.zeros(count, dtype=torch.int64, device=device)
        self.finished = torch.zeros(count, dtype=torch.bool, device=device)
        self.token = torch.zeros(count, max_new_tokens, dtype=torch.int64, device=device)
        self.columns = {name: torch.zeros(count, max_new_tokens, device=device) for name in ("rollout_logp", "entropy")}
        self.top_p = 1.0
        self.prompt_lengths = torch.tensor([len(p) for p in prompts], device=device)
        self._prefill()

    def _prefill(self) -> None:
        lengths, ids = self.prompt_lengths, torch.cat(self.prompts)
        _, positions = token_index(lengths)
        none = torch.zeros(0, dtype=torch.int64, device=ids.device)
        batch = PackedBatch(ids, positions, lengths, none, none, none, none)
        self.cache = _Cache(lengths, self.samples, self.max_new_tokens)
        context = _PrefillAttention(batch, self.policy.precision, self.cache)
        hidden = self.policy.hidden(ids.unsqueeze(0), positions.unsqueeze(0), context).squeeze(0)
        self.hidden = hidden[lengths.cumsum(0) - 1].repeat_interleave(self.samples, 0)
        self.next_position = lengths.repeat_interleave(self.samples)

    def step(self) -> bool:
        """Draw one token for every live sequence; True while some sequence goes on."""
        logits = self.policy.logits(self.hidden).div_(self.temperature[self.rows].unsqueeze(1))
        uniform = self.uniforms.at(self.position, self.rows.cpu().numpy())
        token, drawn = draw(logits, uniform, self.top_p, "expected_discriminator" in self.columns)
        self._refuse_non_finite(drawn["rollout_logp"])
        rows, at = self.rows[self.alive], self.position
        self.token[rows, at] = token[self.alive]
        for name, column in self.columns.items():
            column[rows, at] = drawn[name][self.alive]
        self.length[rows] += 1
        ended = torch.isin(token, self.eos) & self.alive
        self.finished[self.rows[ended]] = True
        self.alive &= ~ended
        self.position += 1
        alive = int(self.alive.sum())
        if alive == 0 or self.position == self.max_new_tokens:
            return False
        if alive < COMPACT_BELOW * len(self.alive):
            token = token[self.alive]
            self._compact()
        self._decode(token)
        return True

    def _compact(self) -> None:
        keep = self.alive.nonzero().squeeze(1)
        self.rows, self.next_position, self.alive = self.rows[keep], self.next_position[keep], self.alive[keep]
        self.cache.keep(keep)

    def _decode(self, token: Tensor) -> None:
        context = _DecodeAttention(self.cache, self.policy.precision)
        hidden = self.policy.hidden(token.unsqueeze(1), self.next_position.unsqueeze(1), context)
        self.hidden = hidden.squeeze(1)
        self.cache.used += 1
        self.next_position = self.next_position + 1

    def _refuse_non_finite(self, logp: Tensor) -> None:
        bad = ~torch.isfinite(logp)
        if bool(bad.any()):
            row = int(self.rows[bad][0])
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
            temperature=self.temperature.clone(),
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
