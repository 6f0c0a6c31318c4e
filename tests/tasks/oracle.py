"""Independent of `workbench.tasks`: an exact evaluator with the usual precedence, and a search over countdown steps."""

import re
from fractions import Fraction
from itertools import permutations


def exact_value(text: str) -> Fraction:
    """Value of an expression of non-negative integers with `+ - *`."""
    return value_of(re.split("[-+*]", text), re.findall("[-+*]", text))


def value_of(numbers, operators) -> Fraction:
    """Sum of signed products: `numbers[0] operators[0] numbers[1] …`, where the numbers may have any sign."""
    products = [Fraction(numbers[0])]
    for operator, number in zip(operators, numbers[1:], strict=True):
        if operator == "*":
            products[-1] *= Fraction(number)
        else:
            products.append(Fraction(number) * (1 if operator == "+" else -1))
    return sum(products)


def reachable(numbers: tuple[int, ...]) -> set[int]:
    """Every value reachable with all the numbers, each intermediate value within 0-99."""
    if len(numbers) == 1:
        return {numbers[0]}
    found: set[int] = set()
    for order in set(permutations(range(len(numbers)), 2)):
        left, right = (numbers[index] for index in order)
        rest = tuple(number for index, number in enumerate(numbers) if index not in order)
        for value in (left + right, left - right, left * right):
            if 0 <= value <= 99:
                found |= reachable((*rest, value))
    return found
