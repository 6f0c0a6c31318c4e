"""reasoning-gym: questions are reproducible and split, difficulty is stated, scorers are the library's and bounded."""

import ast
from pathlib import Path

import pytest
import reasoning_gym
import sympy

from workbench.config import ConfigError
from workbench.tasks import get_task
from workbench.tasks.answers import Pool
from workbench.tasks.base import split_of
from workbench.tasks.reasoning import datasets
from workbench.tasks.verifiers import bounded_algebra

LIBRARY = Path(reasoning_gym.__file__).parent


def tagged(answer):
    return f"I think <answer>1</answer>, no: <answer>{answer}</answer>"


def test_questions_depend_on_seed_and_place_alone():
    task = get_task("reasoning-gym/chain_sum")
    assert task.train_prompts(12, 1) == task.train_prompts(20, 1)[:12]
    assert task.train_prompts(12, 1) != task.train_prompts(12, 2)
    assert task.evaluation_prompts(5) == task.evaluation_prompts(9)[:5]


def test_train_and_evaluation_questions_are_distinct_and_disjoint():
    task = get_task("reasoning-gym/chain_sum")
    train, evaluation = task.train_prompts(60, 0), task.evaluation_prompts(20)
    assert {split_of(prompt.text) for prompt in train} == {"train"}
    assert {split_of(prompt.text) for prompt in evaluation} == {"evaluation"}
    assert len({prompt.text for prompt in [*train, *evaluation]}) == 80


def test_a_data_set_that_is_used_up_gives_what_it_has():
    prompts = get_task("reasoning-gym/count_bits?min_n=1&max_n=12").train_prompts(50, 0)
    assert 5 <= len(prompts) <= 12 and len({prompt.text for prompt in prompts}) == len(prompts)


@pytest.mark.parametrize("dataset", ["isomorphic_strings", "polynomial_multiplication", "ransom_note"])
def test_questions_made_of_sets_of_strings_are_the_same_in_every_process(dataset, monkeypatch):
    first = get_task(f"reasoning-gym/{dataset}").evaluation_prompts(3)
    fresh = Pool(1)
    monkeypatch.setattr("workbench.tasks.reasoning.pool", lambda purpose: fresh)
    try:
        assert get_task(f"reasoning-gym/{dataset}").evaluation_prompts(3) == first
    finally:
        fresh.close()


@pytest.mark.parametrize(
    "dataset",
    ["chain_sum", "countdown", "n_queens", "polynomial_multiplication", "simple_integration", "spiral_matrix"],
)
def test_the_data_set_s_own_answers_are_right_and_others_wrong(dataset):
    task = get_task(f"reasoning-gym/{dataset}")
    prompts = task.evaluation_prompts(4)
    right = task.verify_all(prompts, [tagged(prompt.answer) for prompt in prompts])
    assert [verdict.measures for verdict in right] == [{"score": 1.0, "judged": True}] * 4
    assert all(verdict.correct and verdict.reward == 1.0 for verdict in right)
    for response in ("no tags " + prompts[0].answer, tagged("nonsense"), tagged("")):
        assert not task.verify(prompts[0], response).correct


def test_partial_credit_is_measured_but_not_rewarded():
    task = get_task("reasoning-gym/spiral_matrix")
    prompt = task.evaluation_prompts(1)[0]
    verdict = task.verify(prompt, tagged(str(prompt.answer.split())))
    assert (verdict.measures["score"], verdict.reward, verdict.correct) == (0.1, 0.0, False)


def test_a_level_is_the_curriculum_s_and_parameters_are_taken_as_they_are():
    assert get_task("reasoning-gym/chain_sum").parameters == {}
    assert get_task("reasoning-gym/chain_sum?level=2").parameters == {"max_terms": 4, "max_digits": 3}
    task = get_task("reasoning-gym/chain_sum?min_terms=6&max_terms=6")
    assert {prompt.text.count("+") + prompt.text.count(" - ") for prompt in task.evaluation_prompts(10)} == {5}


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("chainsum", "did you mean 'chain_sum'"),
        ("chain_sum?terms=3", "unknown parameter 'terms'"),
        ("chain_sum?min_terms=0", "refuses these parameters"),
        ("chain_sum?level=-1", "whole number from 0"),
        ("chain_sum?seed=3", "unknown parameter 'seed'"),
        ("composite", "unknown data set"),
    ],
)
def test_unknown_data_sets_levels_and_parameters_are_refused(name, said):
    with pytest.raises(ConfigError, match=said):
        get_task(f"reasoning-gym/{name}")


def test_every_data_set_can_be_named():
    assert len(datasets()) > 100
    for name in datasets():
        assert get_task(f"reasoning-gym/{name}").dataset == name


def test_no_other_module_of_the_library_evaluates_text():
    """Read and judged one by one: besides the nine guarded scorers, these evaluate what the library itself wrote."""
    own_text = {"codeio", "basic_arithmetic", "bitwise_arithmetic", "number_sorting", "generators_00_49",
                "generators_50_99", "propositional_logic"}  # fmt: skip
    guarded = {"binary_matrix", "spiral_matrix", "string_insertion", "n_queens", "countdown", "puzzle24",
               "polynomial_multiplication", "simple_integration", "intermediate_integration"}  # fmt: skip
    found = set()
    for path in LIBRARY.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                called = getattr(node.func, "id", getattr(node.func, "attr", ""))
                if called in {"eval", "exec", "parse_expr", "sympify", "system", "Popen"}:
                    found.add(path.stem)
    assert guarded <= found <= own_text | guarded


@pytest.mark.parametrize(
    "text", ["2*x**2 + 3*x - 1", "sin(x)*exp(-x/2)", "(1 + 2)*3/4", "-x**3 + C", "sqrt(x) + pi", "1.5"]
)
def test_expressions_are_those_of_sympy(text):
    assert sympy.simplify(bounded_algebra.expression(text) - sympy.parse_expr(text)) == 0


@pytest.mark.parametrize(
    "text",
    ["9**9**9", "9**99999", "x**99999", "x.__class__", "f(x)", "lambda: 0", "[1]", "'a'", "1 if x else 2",
     "(" * 5000, "-" * 1500 + "1", "", "\0", "2^3", "x:=1", "1 + 1" * 1000, "sin(x, y)", "sin(x=1)"],
)  # fmt: skip
def test_what_is_no_bounded_arithmetic_is_refused(text):
    with pytest.raises(ValueError, match=r"too long|not an expression|huge power|not arithmetic"):
        bounded_algebra.expression(text)
