"""Documents for pre-training and the batches they make.

One document (prompt and trace) per row, never packed: every document stands at position 0 with nothing before it, just
as the sampler will present it. Rows of similar length share a micro-batch, so little is padding.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

import torch
from transformers import PreTrainedTokenizerFast

from workbench.tasks import TASKS, Solver


@dataclass(frozen=True)
class Document:
    """Token ids of a prompt and its trace; the first `prompt_length` belong to the prompt."""

    tokens: list[int]
    prompt_length: int


def documents(
    mixture: dict[str, float], solver: Solver, seed: int, tokenizer: PreTrainedTokenizerFast
) -> Iterator[Document]:
    """An endless stream of documents: training prompts of the `mixture` (shares by task) with the solver's traces."""
    rng = Random(f"pretrain/{seed}")
    names, shares = list(mixture), list(mixture.values())
    encode = tokenizer.backend_tokenizer.encode
    while True:
        task = TASKS[rng.choices(names, shares)[0]]
        prompt = task.draw(rng, "train")
        prompt_length = len(encode(prompt.text).ids)
        yield Document(encode(prompt.text + task.trace(prompt, solver, rng)).ids, prompt_length)


def step_documents(stream: Iterator[Document], tokens: int) -> list[Document]:
    """Documents of one optimiser step, `tokens` tokens or slightly more, sorted by length."""
    chosen: list[Document] = []
    total = 0
    while total < tokens:
        chosen.append(next(stream))
        total += len(chosen[-1].tokens)
    return sorted(chosen, key=lambda document: len(document.tokens))


def micro_batches(chosen: list[Document], count: int) -> list[list[Document]]:
    """At most `count` slices of the sorted documents, with about the same number of tokens each."""
    ends = torch.tensor([len(document.tokens) for document in chosen]).cumsum(0)
    part = ((ends - 1) * count // ends[-1]).tolist()
    slices = [
        [document for document, index in zip(chosen, part, strict=True) if index == wanted] for wanted in range(count)
    ]
    return [documents for documents in slices if documents]


def collate(batch: list[Document], prompt_weight: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Inputs, targets (int64) and loss weights (f32), each [documents, longest − 1]; padded on the right.

    Padding is never attended to by a real token, since attention is causal, and never trained on.
    """
    shape = (len(batch), max(len(document.tokens) for document in batch))
    tokens = torch.zeros(shape, dtype=torch.long)
    weights = torch.zeros(shape)
    for row, document in enumerate(batch):
        length = len(document.tokens)
        tokens[row, :length] = torch.tensor(document.tokens)
        weights[row, :length] = 1.0
        weights[row, : document.prompt_length] = prompt_weight
    return tokens[:, :-1], tokens[:, 1:], weights[:, 1:]
