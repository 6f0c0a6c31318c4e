"""Pre-training of the bundled policy on traces of an unskilled solver (`python -m workbench pretrain`)."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from time import perf_counter

import pandas as pd
import torch
from pydantic import Field, field_validator
from torch.nn.functional import cross_entropy
from transformers import GenerationConfig, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from workbench.config import Section
from workbench.policy.model import Policy, load_policy
from workbench.policy.tokenizer import build_tokenizer, end_mark_ids
from workbench.tasks import TASKS, Solver, get_task
from workbench.training.base_report import measure, write_model_card
from workbench.training.pretrain_data import Document, collate, documents, micro_batches, step_documents


class PretrainConfig(Section):
    """Everything that decides the bundled policy; the same config gives the same policy on the same machine."""

    seed: int = Field(0, ge=0, description="seed of the weights and of the documents")
    steps: int = Field(1000, ge=1, description="optimiser steps")
    tokens_per_step: int = Field(7000, ge=100, description="tokens per optimiser step, prompts included")
    micro_batches: int = Field(4, ge=1, description="parts of a step, by document length")
    learning_rate: float = Field(4e-3, gt=0, description="AdamW's highest learning rate")
    warmup: float = Field(0.06, ge=0, lt=1, description="share of the steps in which the learning rate rises")
    weight_decay: float = Field(0.1, ge=0, description="AdamW's decoupled weight decay")
    max_grad_norm: float = Field(1.0, gt=0, description="gradients are clipped to this norm")
    prompt_weight: float = Field(0.1, ge=0, le=1, description="loss weight of prompt tokens; response tokens have 1")
    width: int = Field(128, ge=16, multiple_of=16, description="hidden size")
    layers: int = Field(4, ge=1, description="transformer layers")
    heads: int = Field(4, ge=1, description="attention heads")
    feed_forward: int = Field(352, ge=16, description="width of the feed-forward layers")
    solver: Solver = Field(Solver(), description="habits of the solver whose traces are learnt")
    mixture: dict[str, float] = Field(
        {
            "reduce": 0.55,
            "reduce-short": 0.1,
            "reduce-long": 0.1,
            "countdown": 0.15,
            "countdown-short": 0.05,
            "countdown-long": 0.05,
        },
        description="share of each task among the documents",
    )
    evaluation_prompts: int = Field(256, ge=1, description="held-out prompts per task measured at the end")
    evaluation_samples: int = Field(16, ge=1, description="responses per held-out prompt")

    @field_validator("mixture")
    @classmethod
    def _known_tasks(cls, mixture: dict[str, float]) -> dict[str, float]:
        for name, share in mixture.items():
            get_task(name)
            if share < 0:
                raise ValueError(f"mixture: the share of {name!r} is {share}; give a number ≥ 0.")
        if not sum(mixture.values()) > 0:
            raise ValueError("mixture: all shares are 0; give at least one task a positive share.")
        return mixture


def build_model(config: PretrainConfig, tokenizer: PreTrainedTokenizerFast) -> Qwen2ForCausalLM:
    """A freshly initialised Qwen2 whose weights depend on `config.seed` alone."""
    ends = end_mark_ids(tokenizer)
    special = {"bos_token_id": None, "eos_token_id": ends, "pad_token_id": tokenizer.pad_token_id}
    torch.manual_seed(config.seed)
    model = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=len(tokenizer),
            hidden_size=config.width,
            intermediate_size=config.feed_forward,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            num_key_value_heads=config.heads,
            max_position_embeddings=256,
            tie_word_embeddings=True,
            **special,
        )
    )
    model.generation_config = GenerationConfig(do_sample=True, temperature=1.0, top_k=0, top_p=1.0, **special)
    return model


def learning_rate_factor(step: int, config: PretrainConfig) -> float:
    """Linear warm-up, then linear decay to zero after the last step; `step` counts from 0."""
    rise = max(1, round(config.warmup * config.steps))
    return min((step + 1) / rise, (config.steps - step) / max(1, config.steps - rise))


def train_step(model: Qwen2ForCausalLM, chosen: list[Document], config: PretrainConfig) -> float:
    """Accumulates the gradient of one step's weighted mean loss and returns that loss, in nats per token."""
    batches = [collate(part, config.prompt_weight) for part in micro_batches(chosen, config.micro_batches)]
    denominator = sum(weights.sum().item() for _, _, weights in batches)
    total = 0.0
    for inputs, targets, weights in batches:
        logits = model(input_ids=inputs, use_cache=False).logits
        losses = cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
        loss = (losses * weights.flatten()).sum() / denominator
        loss.backward()
        total += loss.item()
    return total


def fit(
    model: Qwen2ForCausalLM, stream: Iterator[Document], config: PretrainConfig, log: Callable[[str], None]
) -> list[float]:
    """Trains the model in place; returns the loss of every step."""
    optimiser = torch.optim.AdamW(
        model.parameters(), lr=config.learning_rate, betas=(0.9, 0.95), weight_decay=config.weight_decay, fused=True
    )
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: learning_rate_factor(step, config))
    model.train()
    losses: list[float] = []
    started = perf_counter()
    for step in range(1, config.steps + 1):
        optimiser.zero_grad()
        losses.append(train_step(model, step_documents(stream, config.tokens_per_step), config))
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.max_grad_norm)
        optimiser.step()
        scheduler.step()
        if step % 50 == 0 or step == config.steps:
            recent = fmean(losses[-50:])
            log(f"pretrain {step}/{config.steps}  loss {recent:.4f}  {perf_counter() - started:.0f} s")
    return losses


@dataclass(frozen=True)
class Pretrained:
    """What `pretrain` leaves: the model folder, the loss of every step (nats per token) and the measured numbers."""

    folder: Path
    losses: pd.Series
    measured: pd.DataFrame


def pretrain(config: PretrainConfig, output: Path | str, log: Callable[[str], None] = print) -> Pretrained:
    """Makes the base policy and saves it in the folder `output` with its tokenizer, model card and `report.json`."""
    output = Path(output)
    tokenizer = build_tokenizer()
    model = build_model(config, tokenizer)
    log(f"pretrain: {model.num_parameters():,} parameters, {config.steps} steps")
    started = perf_counter()
    losses = fit(model, documents(config.mixture, config.solver, config.seed, tokenizer), config, log)
    minutes = (perf_counter() - started) / 60
    Policy(model, tokenizer).save(output)
    policy = load_policy(str(output))
    names = [name for name, share in config.mixture.items() if share > 0]
    measured = pd.DataFrame.from_dict(
        {name: measure(policy, TASKS[name], config.evaluation_prompts, config.evaluation_samples) for name in names},
        orient="index",
    ).rename_axis("task")
    write_model_card(output, config.model_dump(), measured, model.num_parameters(), minutes)
    log(measured.round(3).to_string())
    log(f"pretrain: policy and model card in {output}")
    return Pretrained(output, pd.Series(losses, index=range(1, config.steps + 1), name="loss"), measured)
