"""Sampling divided among the ranks: each samples its share of the prompts with an engine of its own."""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor

from workbench import ranks
from workbench.rollout.streams import Stream
from workbench.tables import NonFiniteError, Rollouts


class Engine(Protocol):
    """What samples; see `NativeEngine`."""

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
    ) -> Rollouts: ...

    def weights_changed(self) -> None: ...

    def close(self) -> None: ...


class RankedEngine:
    """`engine` on every rank. All ranks get the rollouts of all, in the order of the prompts; a response depends on its
    prompt's place in the whole list, so it is the same for any number of ranks."""

    def __init__(self, engine: Engine):
        self.engine = engine

    def generate(
        self,
        prompts: list[Tensor],
        samples: int,
        temperature: Tensor,
        max_new_tokens: int,
        stream: Stream,
        **options,
    ) -> Rollouts:
        """As the engine's own. What fails on one rank is raised on all."""
        own = ranks.share(len(prompts))
        # A rank without a prompt samples the first one, so that it has the columns the others have, and drops it.
        start, stop = (own.start, own.stop) if own else (0, 1)
        placed = replace(stream, first_prompt=stream.first_prompt + start)
        with ranks.as_one():
            try:
                part = self.engine.generate(
                    prompts[start:stop], samples, temperature[start:stop], max_new_tokens, placed, **options
                )
            except NonFiniteError as error:
                where = f"rank {ranks.number()}, whose prompts begin with number {start}"
                batch = None if error.rollouts is None else error.rollouts.cpu()  # it goes to all ranks
                raise NonFiniteError(f"{error} ({where})", batch) from error
        if not own:
            part = part.select_sequences(torch.zeros_like(part.sequences.finished))
        return _together(prompts, part, start)

    def weights_changed(self) -> None:
        self.engine.weights_changed()

    def close(self) -> None:
        self.engine.close()


def _together(prompts: list[Tensor], part: Rollouts, start: int) -> Rollouts:
    """The rollouts of all ranks; `part` is this one's, to the prompts from number `start` on."""
    before = sum(ranks.gathered_list([len(part.sequences)])[: ranks.number()])
    sequences = part.sequences.with_columns(prompt=part.sequences.prompt + start, group=part.sequences.group + start)
    tokens = part.tokens.with_columns(sequence=part.tokens.sequence + before)
    return Rollouts(prompts, ranks.gathered_table(sequences), ranks.gathered_table(tokens))
