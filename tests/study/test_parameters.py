"""Parameters are refused before anything is computed."""

import nbformat
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nbformat.v4 import new_code_cell, new_notebook

from workbench.study.notebooks import check_parameters, execute_notebook, parse_parameters

CELL = """label: str = "cpu"  # any text
steps: int = 0  # rollout steps
learning_rate: float = 0.0  # peak
debug: bool = False  # more output
ks: list[int] = [1]  # pass@k
target: "Optional[float]" = None  # entropy"""


@pytest.fixture(scope="module")
def notebook(tmp_path_factory):
    path = tmp_path_factory.mktemp("nb") / "demo.ipynb"
    nbformat.write(new_notebook(cells=[new_code_cell(CELL, metadata={"tags": ["parameters"]})]), path)
    return path


def test_text_becomes_the_declared_type(notebook):
    given_text = ["label=7", "steps=60", "learning_rate=1e-6", "debug=true", "ks=[1, 4]", "target=null"]
    assert parse_parameters(notebook, given_text) == {
        "label": "7", "steps": 60, "learning_rate": 1e-6, "debug": True, "ks": [1, 4], "target": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"learning_rat": 1.0}, "no parameter 'learning_rat'; did you mean 'learning_rate'"),
        ({"steps": "many"}, "'steps' is 'many'; demo.ipynb needs int"),
        ({"steps": 1.5}, "needs int"),
        ({"steps": True}, "needs int"),
        ({"debug": 1}, "needs bool"),
        ({"ks": [1, "2"]}, r"needs list\[int\]"),
        ({"target": "x"}, r"needs Optional\[float\]"),
    ],
)
def test_wrong_names_and_types_are_refused_before_compute(notebook, tmp_path, parameters, message):
    with pytest.raises(ValueError, match=message):
        execute_notebook(notebook, parameters, tmp_path)
    assert not list(tmp_path.iterdir())


def test_an_assignment_needs_a_value(notebook):
    with pytest.raises(ValueError, match="write name=value"):
        parse_parameters(notebook, ["steps"])


@given(
    st.one_of(st.integers(), st.floats(allow_nan=False), st.booleans(), st.none(), st.text(), st.lists(st.integers()))
)
def test_exactly_numbers_pass_as_float(notebook, value):
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if number:
        assert check_parameters(notebook, {"learning_rate": value}) == {"learning_rate": value}
    else:
        with pytest.raises(ValueError, match="needs float"):
            check_parameters(notebook, {"learning_rate": value})
