"""The verifiable tasks: what is asked (prompts), how it is judged (verifiers), how an unskilled solver would answer.

Two families, each with a shorter and a longer variant that serve as out-of-domain sets: `reduce` and `countdown`.
"""

from workbench import config
from workbench.tasks.base import Prompt, Solver, Split, Task, Verdict
from workbench.tasks.countdown import Countdown
from workbench.tasks.examples import example_traces
from workbench.tasks.reduce import Reduce

__all__ = [
    "TASKS",
    "Countdown",
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


TASKS: dict[str, Task] = {
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
config.TASKS.update(TASKS)  # so that a RunConfig refuses unknown names without importing the tasks


def get_task(name: str) -> Task:
    """The task of that name; `ConfigError` (a `ValueError`) with the nearest valid name otherwise."""
    if name not in TASKS:
        raise config.ConfigError(f"unknown task '{name}'{config.nearest(name, TASKS)}")
    return TASKS[name]
