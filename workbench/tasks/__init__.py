"""The verifiable tasks: what is asked (prompts), how it is judged (verifiers), how an unskilled solver would answer.

Bundled: two families, each with a shorter and a longer variant that serve as out-of-domain sets: `reduce` and
`countdown`. By name (`FAMILIES`): `reasoning-gym/<data set>`, `math/<set>` and others, see `workbench.tasks.naming`.
"""

from functools import lru_cache
from importlib import import_module

from workbench import config
from workbench.tasks.base import ProceduralTask, Prompt, Solver, Split, Task, Verdict
from workbench.tasks.countdown import Countdown
from workbench.tasks.examples import example_traces
from workbench.tasks.naming import parse_name
from workbench.tasks.reduce import Reduce

__all__ = [
    "FAMILIES",
    "TASKS",
    "Countdown",
    "ProceduralTask",
    "Prompt",
    "Reduce",
    "Solver",
    "Split",
    "Task",
    "Verdict",
    "example_traces",
    "get_task",
]

_REDUCE = ("reduce", "reduce-short", "reduce-long")
_COUNTDOWN = ("countdown", "countdown-short", "countdown-long")


def _elsewhere(name: str) -> tuple[str, ...]:
    """Out-of-domain sets: the rest of the family, and the other family's default."""
    family, foreign = (_REDUCE, "countdown") if name in _REDUCE else (_COUNTDOWN, "reduce")
    return (*(other for other in family if other != name), foreign)


TASKS: dict[str, ProceduralTask] = {
    task.name: task
    for task in (
        Reduce("reduce", operands=5, max_response_tokens=32, out_of_domain=_elsewhere("reduce")),
        Reduce("reduce-short", operands=4, max_response_tokens=24, out_of_domain=_elsewhere("reduce-short")),
        Reduce("reduce-long", operands=6, max_response_tokens=48, out_of_domain=_elsewhere("reduce-long")),
        Countdown("countdown", count=3, max_response_tokens=64, out_of_domain=_elsewhere("countdown")),
        Countdown("countdown-short", count=2, max_response_tokens=32, out_of_domain=_elsewhere("countdown-short")),
        Countdown("countdown-long", count=4, max_response_tokens=96, out_of_domain=_elsewhere("countdown-long")),
    )
}
FAMILIES = {
    "math": "workbench.tasks.mathematics",
    "reasoning-gym": "workbench.tasks.reasoning",
    "instructions": "workbench.tasks.instructions",
    "code": "workbench.tasks.code",
}
"""Families of data sets by name -> the module whose `make_task(name: SetName)` builds a member. It loads no data yet,
and raises `ValueError` for a set or an option that it does not know."""


@lru_cache(maxsize=128)
def get_task(name: str) -> Task:
    """The task of that name; `ConfigError` (a `ValueError`) with the nearest valid name otherwise."""
    if name in TASKS:
        return TASKS[name]
    family = name.partition("/")[0]
    if family not in FAMILIES:
        sets = [*TASKS, *(f"{family}/…" for family in FAMILIES)]
        raise config.ConfigError(f"unknown task '{name}'{config.nearest(name, sets)}")
    try:
        return import_module(FAMILIES[family]).make_task(parse_name(name))
    except config.ConfigError:
        raise
    except ValueError as error:
        raise config.ConfigError(str(error)) from None


config.TASKS.update(TASKS)
config.TASK_CHECKS.append(get_task)  # so that a RunConfig refuses unknown names without importing the tasks
