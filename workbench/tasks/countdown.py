"""`countdown`: reach a target from given numbers, each used exactly once, in as many attempts as one likes.

`3,7,8>45:` could be answered by `3*7=21,21+8=29;7*8=56,56-3=53?`: attempts separated by `;`, ended by `!` (solved) or
`?` (giving up). Looking for a solution inside one response needs variety, so this task keeps entropy up by itself.
"""

import re
from dataclasses import dataclass
from random import Random

from workbench.tasks.base import (
    MAX_TEXT,
    NUMBER,
    OPERATORS,
    ProceduralTask,
    Prompt,
    Solver,
    Verdict,
    apply,
    in_range,
    slipped,
)

SOLVED, GAVE_UP = "!", "?"
MAX_NUMBER = 20  # largest number given in a prompt
_STEP = re.compile(rf"({NUMBER})([-+*])({NUMBER})=({NUMBER})")


def numbers_and_target(prompt: Prompt) -> tuple[list[int], int]:
    """The given numbers, in the order of the prompt, and the target."""
    numbers, target = prompt.text.removesuffix(":").split(">")
    return [int(number) for number in numbers.split(",")], int(target)


def check_attempt(text: str, numbers: list[int]) -> tuple[int, str] | None:
    """Value reached by one attempt and its canonical form, or None if any step is malformed, wrong or not allowed.

    The canonical form orders the operands of sums and products, so that `7*3=21` and `3*7=21` are one derivation.
    """
    available = list(numbers)
    canonical: list[str] = []
    for step in text.split(","):
        match = _STEP.fullmatch(step)
        if not match:
            return None
        left, operator, right, value = int(match[1]), match[2], int(match[3]), int(match[4])
        for operand in (left, right):
            if operand not in available:
                return None
            available.remove(operand)
        if apply(left, operator, right) != value:
            return None
        available.append(value)
        if operator != "-":
            left, right = sorted((left, right))
        canonical.append(f"{left}{operator}{right}={value}")
    return (available[0], ",".join(canonical)) if len(available) == 1 else None


def random_step(available: list[int], rng: Random) -> tuple[int, str, int]:
    """Two of the available numbers and an operator, the result being writable; a larger number is never subtracted."""
    while True:
        left, right = rng.sample(available, 2)
        operator = rng.choice(OPERATORS)
        if in_range(apply(left, operator, right)):
            return left, operator, right


@dataclass(frozen=True)
class Countdown(ProceduralTask):
    """`count` numbers 1-20 and a reachable target; reward 1 iff the response ends with `!` and its last attempt hits.

    Measures: `valid` (every attempt is well-formed and right in itself, hit or miss), `attempts` (how many) and
    `derivation` (canonical form of the solution, '' if there is none).
    """

    name: str
    count: int
    max_response_tokens: int
    out_of_domain: tuple[str, ...]

    def propose(self, rng: Random) -> Prompt:
        numbers = [rng.randint(1, MAX_NUMBER) for _ in range(self.count)]
        available = list(numbers)
        while len(available) > 1:
            left, operator, right = random_step(available, rng)
            available.remove(left)
            available.remove(right)
            available.append(apply(left, operator, right))
        target = str(available[0])
        return Prompt(f"{','.join(map(str, numbers))}>{target}:", self.name, target)

    def split_key(self, prompt: Prompt) -> str:
        numbers, target = numbers_and_target(prompt)
        return f"{sorted(numbers)}>{target}"  # the order of the numbers does not make a new question

    def verify(self, prompt: Prompt, response_text: str) -> Verdict:
        if len(response_text) > MAX_TEXT or not response_text.endswith((SOLVED, GAVE_UP)):
            return Verdict(0.0, False, "", {"valid": False, "attempts": 0, "derivation": ""})
        numbers, target = numbers_and_target(prompt)
        attempts = [check_attempt(text, numbers) for text in response_text[:-1].split(";")]
        last = attempts[-1]
        correct = last is not None and last[0] == target and response_text.endswith(SOLVED)
        measures = {
            "valid": all(attempt is not None for attempt in attempts),
            "attempts": len(attempts),
            "derivation": last[1] if correct else "",
        }
        answer = str(last[0]) if last is not None and response_text.endswith(SOLVED) else ""
        return Verdict(float(correct), correct, answer, measures)

    def trace(self, prompt: Prompt, solver: Solver, rng: Random) -> str:
        numbers, target = numbers_and_target(prompt)
        attempts: list[str] = []
        while True:
            text, value = self._attempt(numbers, solver, rng)
            attempts.append(text)
            if value == target:
                return ";".join(attempts) + SOLVED
            if len(attempts) == solver.max_attempts or rng.random() < solver.give_up:
                return ";".join(attempts) + GAVE_UP

    @staticmethod
    def _attempt(numbers: list[int], solver: Solver, rng: Random) -> tuple[str, int]:
        """A random attempt and the value the solver believes to have reached."""
        available = list(numbers)
        steps: list[str] = []
        value = 0
        while len(available) > 1:
            left, operator, right = random_step(available, rng)
            value = apply(left, operator, right)
            if rng.random() < solver.slip:
                value = slipped(value, rng)
            available.remove(left)
            available.remove(right)
            available.append(value)
            steps.append(f"{left}{operator}{right}={value}")
        return ",".join(steps), value
