"""The verifier of `reduce` against an exact evaluator and hand-written cases."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.tasks.oracle import exact_value, value_of
from workbench.tasks import Prompt, get_task
from workbench.tasks.reduce import Expression, parse, standard_value

TASK = get_task("reduce")
EXAMPLE = Prompt("2+2*3-1+4=", "reduce", "11")


@st.composite
def expressions(draw):
    count = draw(st.integers(2, 6))
    numbers = tuple(draw(st.integers(0, 20)) for _ in range(count))
    return Expression(numbers, draw(st.text("+-*", min_size=count - 1, max_size=count - 1)))


@pytest.mark.parametrize(
    ("response", "correct", "derivation"),
    [
        ("2+6-1+4=2+5+4=7+4=11#", True, "1,1,0,0"),
        ("2+6-1+4=8-1+4=7+4=11#", True, "1,0,0,0"),
        ("2+6-1+4=2+5+4=2+9=11#", True, "1,1,1,0"),
        ("2+6-1+4=2+5+4=7+4=12#", False, ""),  # a slip at the end
        ("4*3-1+4=12-1+4=11+4=15#", False, ""),  # wrong precedence
        ("2+6-1+4=2+6-5=8-5=3#", False, ""),  # regrouped behind a minus
        ("11#", True, ""),  # the reward looks at the final value only
        ("2+6-1+4=11#", True, ""),  # two reductions in one step
        ("2+6-1+4=2+5+4=7+4=11", False, ""),  # not ended
        ("2+6-1+4=2+5+4=7+4=11!", False, ""),  # another task's end mark
        ("2+6-1+4=2+5+4=7+4=011#", False, ""),
        ("2+6-1+4=2+5+4=7+11#", False, ""),  # the final value is not a bare number
    ],
)
def test_examples(response, correct, derivation):
    verdict = TASK.verify(EXAMPLE, response)
    assert verdict.correct is correct
    assert verdict.measures == {"valid": bool(derivation), "derivation": derivation}


@given(expressions())
def test_the_standard_value_is_exact(expression):
    value = standard_value(expression)
    if value is not None:
        assert value == exact_value(str(expression))
        assert 0 <= value <= 99


@given(expressions())
def test_a_reduction_is_legal_exactly_if_it_keeps_the_value_whatever_the_numbers(expression):
    """The oracle puts brackets around a pair: that must change nothing, for every choice of numbers."""
    for index, operator in enumerate(expression.operators):
        pair = exact_value(f"{expression.numbers[index]}{operator}{expression.numbers[index + 1]}")
        keeps = all(
            bracketed(numbers, expression.operators, index) == value_of(numbers, expression.operators)
            for numbers in probes(len(expression.numbers))
        )
        assert (index in expression.legal()) == (keeps and 0 <= pair <= 99)


def probes(count):
    return [[(3 * step + 7 * position**2) % 11 + 2 for position in range(count)] for step in range(1, 6)]


def bracketed(numbers, operators, index):
    """Value of the expression with brackets around the pair of numbers at operator `index`."""
    pair = value_of(numbers[index : index + 2], operators[index])
    return value_of([*numbers[:index], pair, *numbers[index + 2 :]], operators[:index] + operators[index + 1 :])


def test_every_prompt_has_the_stated_form_and_answer():
    for name, operands in (("reduce-short", 4), ("reduce", 5), ("reduce-long", 6)):
        for prompt in get_task(name).train_prompts(100, seed=0):
            expression = parse(prompt.text.removesuffix("="))
            assert len(expression.numbers) == operands
            assert all(1 <= number <= 9 for number in expression.numbers)
            assert exact_value(str(expression)) == int(prompt.answer)
            assert 0 <= int(prompt.answer) <= 99


@given(st.lists(st.integers(0, 3), min_size=4, max_size=4), st.integers(0, 99))
def test_a_valid_derivation_is_correct_and_reports_its_order(choices, which):
    prompt = TASK.train_prompts(100, seed=9)[which]
    expression, rewrites = parse(prompt.text.removesuffix("=")), []
    while expression.operators:
        legal = expression.legal()
        if not legal:
            return
        index = legal[choices[len(rewrites)] % len(legal)]
        expression = expression.reduced(index, expression.result(index))
        rewrites.append(str(expression))
    verdict = TASK.verify(prompt, "=".join(rewrites) + "#")
    assert verdict.correct
    assert verdict.measures["valid"]
    assert len(verdict.measures["derivation"].split(",")) == 4


@pytest.mark.parametrize("text", ["", "+1", "1+", "01", "1++2", "100", "1/2", "(1)", "1 + 2", "٣", "1\n"])
def test_malformed_expressions_are_not_parsed(text):
    assert parse(text) is None
