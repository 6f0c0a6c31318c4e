"""`reduce`: rewrite an arithmetic expression, one reduction at a time, until one number is left.

`2+2*3-1+4=` is answered by `2+6-1+4=2+5+4=7+4=11#`. Any order of reductions that keeps the value is a correct
derivation, so a group of correct responses can still differ.
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

END = "#"
_EXPRESSION = re.compile(rf"{NUMBER}(?:[-+*]{NUMBER})*")
_NUMBER = re.compile(NUMBER)


@dataclass(frozen=True)
class Expression:
    """`numbers[0] operators[0] numbers[1] …`, with one operator less than numbers."""

    numbers: tuple[int, ...]
    operators: str

    def __str__(self) -> str:
        tail = (f"{operator}{number}" for operator, number in zip(self.operators, self.numbers[1:], strict=True))
        return str(self.numbers[0]) + "".join(tail)

    def result(self, index: int) -> int:
        """The value of operator `index` applied to its two neighbours."""
        return apply(self.numbers[index], self.operators[index], self.numbers[index + 1])

    def reduced(self, index: int, value: int) -> "Expression":
        """The expression with operator `index` and its two neighbours replaced by `value`."""
        numbers = (*self.numbers[:index], value, *self.numbers[index + 2 :])
        return Expression(numbers, self.operators[:index] + self.operators[index + 1 :])

    def legal(self) -> list[int]:
        """Operators that may be reduced now: the value of the whole is kept, and the result can be written.

        A product may always be reduced. A sum or difference may not while a product claims one of its numbers, nor
        right of a minus, where regrouping would flip its sign.
        """
        return [index for index in range(len(self.operators)) if self._binds(index) and in_range(self.result(index))]

    def _binds(self, index: int) -> bool:
        if self.operators[index] == "*":
            return True
        before = self.operators[index - 1] if index else "+"
        return before == "+" and self.operators[index + 1 : index + 2] != "*"


def parse(text: str) -> Expression | None:
    """The expression written in `text`, or None; ASCII, numbers 0-99 without leading zeros."""
    if not _EXPRESSION.fullmatch(text):
        return None
    numbers = tuple(int(number) for number in _NUMBER.findall(text))
    return Expression(numbers, "".join(character for character in text if character in OPERATORS))


def standard_value(expression: Expression) -> int | None:
    """Value by the standard derivation (products left to right, then the rest); None if it leaves 0-99 on the way."""
    while expression.operators:
        index = max(expression.operators.find("*"), 0)
        value = expression.result(index)
        if not in_range(value):
            return None
        expression = expression.reduced(index, value)
    return expression.numbers[0]


def derivation(start: Expression, rewrites: list[str]) -> str:
    """The reductions taken, as operator indices such as `1,1,0,0`, or '' if any rewrite is not one legal reduction."""
    steps: list[str] = []
    expression = start
    for rewrite in rewrites:
        successors = {
            str(expression.reduced(index, expression.result(index))): index for index in reversed(expression.legal())
        }  # reversed: the leftmost of equal successors wins
        if rewrite not in successors:
            return ""
        index = successors[rewrite]
        expression = expression.reduced(index, expression.result(index))
        steps.append(str(index))
    return "" if expression.operators else ",".join(steps)


@dataclass(frozen=True)
class Reduce(ProceduralTask):
    """Expressions of `operands` numbers 1-9; reward 1 iff the final value is right, whatever stands before it.

    Measures: `valid` (every rewrite is one legal reduction, down to a single number) and `derivation` (see the function
    of that name), so that the distinct correct derivations of a group can be counted.
    """

    name: str
    operands: int
    max_response_tokens: int
    out_of_domain: tuple[str, ...]

    def propose(self, rng: Random) -> Prompt:
        while True:
            numbers = tuple(rng.randint(1, 9) for _ in range(self.operands))
            expression = Expression(numbers, "".join(rng.choices(OPERATORS, k=self.operands - 1)))
            value = standard_value(expression)
            if value is not None:
                return Prompt(f"{expression}=", self.name, str(value))

    def verify(self, prompt: Prompt, response_text: str) -> Verdict:
        unfinished = Verdict(0.0, False, "", {"valid": False, "derivation": ""})
        if len(response_text) > MAX_TEXT or not response_text.endswith(END):
            return unfinished
        rewrites = response_text.removesuffix(END).split("=")
        correct = rewrites[-1] == prompt.answer
        steps = derivation(parse(prompt.text.removesuffix("=")), rewrites)
        answer = rewrites[-1] if _NUMBER.fullmatch(rewrites[-1]) else ""
        return Verdict(float(correct), correct, answer, {"valid": bool(steps), "derivation": steps})

    def trace(self, prompt: Prompt, solver: Solver, rng: Random) -> str:
        expression = parse(prompt.text.removesuffix("="))
        rewrites: list[str] = []
        while expression.operators:
            index = self._choose(expression, solver, rng)
            value = min(max(expression.result(index), 0), 99)
            if rng.random() < solver.slip:
                value = slipped(value, rng)
            expression = expression.reduced(index, value)
            rewrites.append(str(expression))
        return "=".join(rewrites) + END

    @staticmethod
    def _choose(expression: Expression, solver: Solver, rng: Random) -> int:
        legal = expression.legal()
        wrong = [index for index in range(len(expression.operators)) if index not in legal]
        if not legal or (wrong and rng.random() < solver.wrong_precedence):
            return rng.choice(wrong)
        return rng.choice(legal)
