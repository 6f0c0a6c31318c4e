"""The verifier of `countdown` against a brute-force search and hand-written cases."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.tasks.oracle import exact_value, reachable
from workbench.tasks import Prompt, get_task
from workbench.tasks.countdown import check_attempt, numbers_and_target

TASK = get_task("countdown")
EXAMPLE = Prompt("3,7,8>29:", "countdown", "29")


@pytest.mark.parametrize(
    ("response", "correct", "valid", "attempts", "derivation"),
    [
        ("3*7=21,21+8=29!", True, True, 1, "3*7=21,8+21=29"),
        ("7*3=21,8+21=29!", True, True, 1, "3*7=21,8+21=29"),
        ("7*8=56,56-3=53;3*7=21,21+8=29!", True, True, 2, "3*7=21,8+21=29"),
        ("3*7=20,20+8=28;3*7=21,21+8=29!", True, False, 2, "3*7=21,8+21=29"),  # an earlier slip costs nothing
        ("3*7=21,21+8=29?", False, True, 1, ""),  # gave up
        ("3*7=21,21+8=29;7*8=56,56-3=53?", False, True, 2, ""),
        ("7*8=56,56-3=53!", False, True, 1, ""),  # missed
        ("3*7=22,22+7=29!", False, False, 1, ""),  # wrong, and 7 used twice
        ("3*7=21,21+8=29", False, False, 0, ""),  # not ended
        ("21+8=29!", False, False, 1, ""),
        ("3*7=21!", False, False, 1, ""),  # 8 not used
        ("3*7=21,21+8=29,29+0=29!", False, False, 1, ""),
        ("3*7=021,21+8=29!", False, False, 1, ""),
        ("3*7=21,21+8=29;!", False, False, 2, ""),  # the last attempt is empty
        ("3-7=-4,8--4=12!", False, False, 1, ""),
    ],
)
def test_examples(response, correct, valid, attempts, derivation):
    verdict = TASK.verify(EXAMPLE, response)
    assert verdict.correct is correct
    if response.endswith(("!", "?")):
        assert verdict.measures == {"valid": valid, "attempts": attempts, "derivation": derivation}


def test_a_number_given_twice_may_be_used_twice():
    assert check_attempt("3+3=6,6*2=12", [3, 3, 2]) == (12, "3+3=6,2*6=12")
    assert check_attempt("3+3=6,6*2=12", [3, 4, 2]) is None


@pytest.mark.parametrize("name", ["countdown-short", "countdown", "countdown-long"])
def test_every_target_is_reachable_by_brute_force(name):
    for prompt in get_task(name).train_prompts(60, seed=0):
        numbers, target = numbers_and_target(prompt)
        assert all(1 <= number <= 20 for number in numbers)
        assert int(prompt.answer) == target in reachable(tuple(numbers))


@given(st.lists(st.integers(1, 20), min_size=2, max_size=4), st.data())
def test_an_attempt_is_accepted_exactly_if_its_arithmetic_is_right(numbers, data):
    """Attempts drawn with right and wrong results; the exact evaluator decides which they are."""
    available, steps, right = list(numbers), [], True
    while len(available) > 1:
        left = available.pop(data.draw(st.integers(0, len(available) - 1)))
        operand = available.pop(data.draw(st.integers(0, len(available) - 1)))
        operator = data.draw(st.sampled_from("+-*"))
        exact = exact_value(f"{left}{operator}{operand}")
        value = int(min(max(exact + data.draw(st.sampled_from([0, 0, 0, 1])), 0), 99))
        right = right and value == exact
        available.append(value)
        steps.append(f"{left}{operator}{operand}={value}")
    result = check_attempt(",".join(steps), numbers)
    assert (result is not None) == right
    if right:
        assert result[0] == available[0] in reachable(tuple(numbers))
