import pandas as pd
import pytest

from workbench.metrics.token_classes import NAMES, TokenClasses, by_class, classify

EXAMPLES = {
    "formal": ["7", "99", "+", " = ", "\\frac", "frac", "3.14", "1,000", "(", "^{", "x^2"[1:], "\\", "\\boxed", "≤"],
    "logical": ["because", " therefore", "If", "thus", "Since"],
    "metacognitive": ["Wait", " hmm", "check", "Alternatively"],
    "rest": ["the", "#", "", " ", "\n", ".", ",", "apple", "iffy", "checks out", "x", "3a"],
}


@pytest.mark.parametrize(("name", "piece"), [(name, piece) for name, pieces in EXAMPLES.items() for piece in pieces])
def test_examples_fall_into_their_class(name, piece):
    assert NAMES[classify([piece])[0]] == name


def test_lists_can_be_edited():
    own = TokenClasses(formal=r"x+", metacognitive=frozenset({"hold"}))
    assert [NAMES[i] for i in classify(["xx", "7", "Hold", "wait", "because"], own)] == [
        "formal", "rest", "metacognitive", "rest", "logical",
    ]  # fmt: skip


def test_classes_follow_their_tokens():
    pieces = ["7", "wait", "7", "the", "wait", "if"]
    assert classify(pieces).tolist() == [0, 2, 0, 3, 2, 1]
    assert classify([]).tolist() == []


def test_a_long_token_is_classed_at_once():
    assert NAMES[classify(["1" * 100_000 + "!"])[0]] == "rest"


def test_means_by_class_of_a_stored_table():
    tokens = pd.DataFrame({"piece": ["7", "wait", "8", "the"], "entropy": [0.1, 2.0, 0.3, 1.0]})
    table = by_class(tokens, ["entropy"])
    assert table["count"].to_dict() == {"formal": 2, "logical": 0, "metacognitive": 1, "rest": 1}
    assert table.loc["formal", "entropy"] == pytest.approx(0.2)
    assert table["share"].sum() == 1
