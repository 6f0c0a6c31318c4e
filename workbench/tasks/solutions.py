"""Correct solutions of a task's prompts, written to a file."""

import json
from collections.abc import Iterable
from pathlib import Path
from random import Random

from workbench.tasks.base import ProceduralTask, Prompt, Solver

PERFECT = Solver(wrong_precedence=0.0, slip=0.0, give_up=0.0)
MAX_TRIES = 10_000


def write_solutions(
    path: str | Path, task: ProceduralTask, prompts: Iterable[Prompt], count: int = 1, seed: int = 0
) -> None:
    """Write `count` solutions of each prompt as JSON lines {"prompt": …, "solution": …}, replacing the file.

    Solutions are traces of a solver that never errs, drawn again until the task's verifier accepts them; a function of
    the arguments alone. Raises `ValueError` for a prompt it does not solve in 10 000 tries.
    """
    lines = []
    for prompt in prompts:
        rng = Random(f"solutions/{seed}/{prompt.text}")
        entries = ({"prompt": prompt.text, "solution": solution(task, prompt, rng)} for _ in range(count))
        lines += [json.dumps(entry) for entry in entries]
    Path(path).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def solution(task: ProceduralTask, prompt: Prompt, rng: Random) -> str:
    """A response to the prompt that the task's verifier accepts."""
    for _ in range(MAX_TRIES):
        response = task.trace(prompt, PERFECT, rng)
        if task.verify(prompt, response).correct:
            return response
    raise ValueError(f"no solution of prompt '{prompt.text}' was found in {MAX_TRIES} tries")
