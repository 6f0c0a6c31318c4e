"""Packing: many responses to shared prompts as one row of tokens without padding, each prompt computed once.

A GRPO group shares its prompt, so a packed batch holds every distinct prompt once and then the responses; a response
attends to its prompt and to itself. Gradients are exact: it is the same function, with the shared prefix factored out.
The last token of a response predicts nothing and is left out.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from workbench.tables import Rollouts, token_index


@dataclass
class PackedBatch:
    """P distinct prompts and S responses as T = Σ prompt lengths + Σ (response lengths − 1) input rows.

    The N response tokens are predicted from `predict_row` and stand in the order of the token table.
    """

    input_ids: Tensor
    """[T] int64: all prompts, then all responses without their last token"""
    position_ids: Tensor
    """[T] int64: position in the text, prompt included"""
    prompt_lengths: Tensor
    """[P] int64"""
    response_lengths: Tensor
    """[S] int64: rows of each response, its length − 1"""
    prompt_of: Tensor
    """[S] int64: index into the P prompts"""
    predict_row: Tensor
    """[N] int64: the row whose hidden state predicts each response token"""
    target: Tensor
    """[N] int64"""


def pack(rollouts: Rollouts) -> PackedBatch:
    """Pack all sequences of `rollouts`; tokens keep their order, so results line up with `rollouts.tokens`.

    Raises `ValueError` on an empty prompt or response, which predict nothing.
    """
    lengths, target = rollouts.sequences.length, rollouts.tokens.token
    used, prompt_of = torch.unique(rollouts.sequences.prompt, return_inverse=True)
    prompts = [rollouts.prompts[i] for i in used.tolist()]
    prompt_lengths = torch.tensor([len(p) for p in prompts], device=lengths.device)
    if len(lengths) == 0 or int(lengths.min()) < 1 or int(prompt_lengths.min()) < 1:
        raise ValueError("cannot pack an empty prompt, an empty response or an empty batch; drop those sequences first")
    sequence, position = token_index(lengths)
    is_input = position < lengths[sequence] - 1
    prompt_ids = torch.cat(prompts)
    _, prompt_position = token_index(prompt_lengths)
    response_start = len(prompt_ids) + (lengths - 1).cumsum(0) - (lengths - 1)
    last_prompt_row = prompt_lengths.cumsum(0) - 1
    predict_row = torch.where(
        position == 0, last_prompt_row[prompt_of][sequence], response_start[sequence] + position - 1
    )
    offset = prompt_lengths[prompt_of][sequence]
    return PackedBatch(
        input_ids=torch.cat([prompt_ids, target[is_input]]),
        position_ids=torch.cat([prompt_position, (offset + position)[is_input]]),
        prompt_lengths=prompt_lengths,
        response_lengths=lengths - 1,
        prompt_of=prompt_of,
        predict_row=predict_row,
        target=target,
    )
