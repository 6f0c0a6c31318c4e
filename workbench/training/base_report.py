"""Measures a base policy on held-out prompts and writes its model card."""

import json
from pathlib import Path

import pandas as pd
import torch

from workbench.metrics.performance import pass_at_k
from workbench.policy.model import Policy
from workbench.tasks import Task
from workbench.training.evaluation import Evaluation


def measure(policy: Policy, task: Task, prompts: int, samples: int, seed: int = 0) -> dict[str, float]:
    """pass@1, pass@`samples`, valid and finished fractions, entropy (nats per response token) and length (tokens).

    Over the task's first `prompts` evaluation prompts at temperature 1; entropy is over the full vocabulary.
    """
    table = Evaluation(task.name, prompts, samples, temperature=1.0, seed=seed, step=0).sample(policy)
    correct = table.correct.reshape(prompts, samples).numpy()
    length = table.length.double()
    return {
        "pass@1": float(pass_at_k(correct, 1).mean()),
        f"pass@{samples}": float(pass_at_k(correct, samples).mean()),
        "valid_fraction": float(torch.as_tensor(table["valid"]).double().mean()),
        "finished_fraction": float(table.finished.double().mean()),
        "entropy": float((table.entropy * length).sum() / length.sum()),
        "length": float(length.mean()),
    }


CARD = """---
library_name: transformers
pipeline_tag: text-generation
tags: [entropy, arithmetic, rlvr]
---

# Base policy

A Qwen2 of {parameters:,} parameters, pre-trained on traces of an unskilled solver of two verifiable tasks, so that it
solves some prompts some of the time, and has entropy to lose. A starting point for reinforcement learning, of no use
by itself.

- `reduce`: `2+2*3-1+4=` is answered by `2+6-1+4=2+5+4=7+4=11#`. The solver takes the operators in random legal order,
  reduces an operator that is not due (wrong precedence) with probability {wrong_precedence} per step, and slips with
  probability {slip} per step: half of the slips are near misses, half are any number.
- `countdown`: `3,7,8>45:` is answered by random attempts such as `3*7=21,21+8=29;7*8=56,56-3=53?`. The solver slips as
  above and after each miss gives up with probability {give_up}, after {max_attempts} attempts always.

Only prompts of the training split were used. Numbers 0-99 are one token each; `#`, `!` and `?` end a response.
There is no BOS token: a prompt's first token is at position 0, in training as in sampling.

## Recipe

{steps} steps of about {tokens_per_step} tokens, fp32, AdamW with {learning_rate} after warm-up, decaying linearly to 0,
seed {seed}: {minutes:.1f} minutes with {threads} threads, torch {torch}. One document per row, never packed. Prompt
tokens count {prompt_weight} in the loss, response tokens 1. `report.json` holds every setting; `python -m workbench
pretrain` and the notebook `90_base_policy` run the recipe. The same seed gives the same weights on the same machine
with the same number of threads.

## Measured on held-out prompts, temperature 1

{prompts} prompts per task, {samples} responses each. Entropy: mean over response tokens, full vocabulary, nats.

{table}
"""


def write_model_card(output: Path, config: dict, measured: pd.DataFrame, parameters: int, minutes: float) -> None:
    """Writes `README.md` (the model card) and `report.json` (settings and measured numbers) into the model folder."""
    facts = {
        "parameters": parameters,
        "minutes": minutes,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
    report = {**facts, "config": config, "measured": measured.to_dict("index")}
    (output / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    rows = [["task", *measured.columns], ["---"] * (len(measured.columns) + 1)]
    rows += [[name, *(f"{value:.3f}" for value in values)] for name, *values in measured.itertuples()]
    table = "\n".join("| " + " | ".join(row) + " |" for row in rows)
    card = CARD.format(
        **facts,
        **config,
        **config["solver"],
        table=table,
        prompts=config["evaluation_prompts"],
        samples=config["evaluation_samples"],
    )
    (output / "README.md").write_text(card)
