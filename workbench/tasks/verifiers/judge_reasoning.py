"""Questions of reasoning-gym and its own `score_answer`, made safe where it evaluates the answer it is given.

Four scorers call `eval` on the answer, five `sympy.parse_expr`, which evaluates too. Both names are replaced in this
process by readers of literals and of arithmetic; answers that only Python itself understands score as wrong.
"""

import base64
import importlib
import pickle
from functools import lru_cache

import bounded_algebra
import reasoning_gym
import sympy

CALL_EVAL = ("algorithmic.binary_matrix", "algorithmic.spiral_matrix", "algorithmic.string_insertion", "games.n_queens")
CALL_PARSE_EXPR = ("games.countdown", "games.puzzle24")
"""Modules that import `parse_expr` by name; the other three use `sympy.parse_expr`."""

for _module in CALL_EVAL:
    importlib.import_module(f"reasoning_gym.{_module}").eval = bounded_algebra.literal
for _module in CALL_PARSE_EXPR:
    importlib.import_module(f"reasoning_gym.{_module}").parse_expr = bounded_algebra.expression


@lru_cache(maxsize=8)
def _dataset(name: str, parameters: tuple, seed: int, size: int):
    return reasoning_gym.create_dataset(name, seed=seed, size=size, **dict(parameters))


def _made(name: str, parameters: dict, seed: int, size: int):
    frozen = ((key, tuple(value) if isinstance(value, list) else value) for key, value in sorted(parameters.items()))
    try:
        return _dataset(name, tuple(frozen), seed, size)
    except TypeError:  # a parameter that has no hash
        return reasoning_gym.create_dataset(name, seed=seed, size=size, **parameters)


def generate(name: str, parameters: dict, seed: int, size: int, first: int, count: int) -> list[dict]:
    """Entries `first`, `first` + 1, … of the data set with this seed and size: question, answer and, pickled for
    `judge`, the whole entry."""
    dataset = _made(name, parameters, seed, size)
    entries = [dataset[index] for index in range(first, min(first + count, size))]
    return [
        {
            "question": entry["question"],
            "answer": "" if entry["answer"] is None else str(entry["answer"]),
            "entry": base64.b64encode(pickle.dumps(entry)).decode(),
        }
        for entry in entries
    ]


def judge(name: str, parameters: dict, entry: str, candidate: str) -> float:
    """The data set's own score of the answer, in [0, 1]."""
    dataset = _made(name, parameters, 0, 16)
    original = sympy.parse_expr
    sympy.parse_expr = bounded_algebra.expression
    try:
        return float(dataset.score_answer(candidate, pickle.loads(base64.b64decode(entry))))
    finally:
        sympy.parse_expr = original
