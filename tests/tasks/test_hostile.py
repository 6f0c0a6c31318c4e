"""Hostile answers over the verifiers: every one gets a verdict within its bound, none is right, none is evaluated."""

import json
from pathlib import Path
from time import perf_counter

import pytest

from tests.tasks.hostile import CANARY, EVALUATED, EXPENSIVE, hostile_answers
from workbench.tasks import Prompt, answers, get_task
from workbench.tasks.answers import WALL_EXTRA, WALL_FACTOR
from workbench.tasks.instructions import NEED_SENTENCES, Request
from workbench.tasks.sandbox import why_unavailable

DATA = Path(__file__).parent.parent / "data"


def every_instruction():
    """All kinds of instructions in one request, with one that no generated answer follows."""
    asked = {"keywords:existence": {"keywords": ["quetzal", "xylophone"]}}
    for record in map(json.loads, (DATA / "ifeval.jsonl").read_text().splitlines()):
        for name, given in zip(record["instruction_id_list"], record["kwargs"], strict=True):
            if name not in NEED_SENTENCES:
                asked.setdefault(name, given)
    return Request(tuple(asked), tuple(asked.values()))


PROMPTS = {
    "instructions/ifeval": Prompt("?", "instructions/ifeval", "", every_instruction()),
    "reduce": Prompt("9*9-8*7-6=", "reduce", "19"),
    "countdown": Prompt("16,3,20>7:", "countdown", "7"),
    "math/aime24": Prompt("?", "math/aime24", "73519"),
    "math/math500": Prompt("?", "math/math500", "\\frac{73519}{2}"),
}
EVALUATING = ("binary_matrix", "countdown", "intermediate_integration", "n_queens", "polynomial_multiplication",
              "puzzle24", "simple_integration", "spiral_matrix", "string_insertion")  # fmt: skip


@pytest.fixture(autouse=True)
def short_bound_and_no_canary(tmp_path, monkeypatch):
    """Workers of this test run in an empty folder, each job with a quarter of a second."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(answers, "_pools", {})
    monkeypatch.setattr("workbench.tasks.mathematics.SECONDS", 0.25)
    monkeypatch.setattr("workbench.tasks.reasoning.SECONDS", 0.25)
    yield
    for pool in answers._pools.values():
        pool.close()
    assert not (Path(tmp_path) / CANARY).exists()


def judged(name, prompt, given):
    """Verdicts of all answers, checked for form; none may be right."""
    verdicts = get_task(name).verify_all([prompt] * len(given), given)
    for answer, verdict in zip(given, verdicts, strict=True):
        assert (verdict.reward, verdict.correct) == (0.0, False), repr(answer[:200])
        verdict.answer.encode()
    assert len({frozenset(verdict.measures) for verdict in verdicts}) == 1
    return verdicts


@pytest.mark.parametrize("name", PROMPTS)
def test_generated_answers_are_judged_and_wrong(name):
    judged(name, PROMPTS[name], hostile_answers(60 if name.startswith("instructions") else 300, seed=1))


@pytest.mark.slow
@pytest.mark.parametrize("name", PROMPTS)
def test_five_thousand_generated_answers_are_judged_and_wrong(name):
    judged(name, PROMPTS[name], hostile_answers(5000, seed=2))


@pytest.mark.slow
@pytest.mark.parametrize("dataset", ["chain_sum", "sudoku", "rubiks_cube", *EVALUATING])
def test_generated_answers_are_wrong_for_reasoning_gym(dataset):
    name = f"reasoning-gym/{dataset}"
    prompt = get_task(name).evaluation_prompts(1)[0]
    judged(name, prompt, hostile_answers(500, seed=3))


def test_scorers_that_evaluate_in_the_library_do_not_evaluate_here():
    for dataset in EVALUATING:
        name = f"reasoning-gym/{dataset}"
        prompt = get_task(name).evaluation_prompts(1)[0]
        judged(name, prompt, [f"<answer>{text}</answer>" for text in EVALUATED])


def test_an_endless_computation_ends_within_its_bound_and_counts_as_wrong():
    bound = WALL_FACTOR * 0.25 + WALL_EXTRA
    for text in EXPENSIVE[:1]:
        started = perf_counter()
        verdict = judged("math/aime24", PROMPTS["math/aime24"], [f"\\boxed{{{text}}}"])[0]
        assert perf_counter() - started < bound
        assert not verdict.measures["judged"]


def test_right_answers_are_still_right_after_hostile_ones():
    task, prompt = get_task("math/math500"), PROMPTS["math/math500"]
    given = ["\\boxed{9^{9^{9}}}", "\\boxed{36759.5}", "\\boxed{1}", "\\boxed{\\frac{147038}{4}}"]
    assert [verdict.correct for verdict in task.verify_all([prompt] * 4, given)] == [False, True, False, True]


def test_the_canary_appears_where_an_answer_is_evaluated(monkeypatch, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    eval(EVALUATED[0])
    assert Path(CANARY).exists()


@pytest.mark.skipif(why_unavailable() is not None, reason=f"no sandbox: {why_unavailable()}")
@pytest.mark.parametrize("count", [100, pytest.param(5000, marks=pytest.mark.slow)])
def test_generated_answers_are_wrong_for_code(count):
    """An eighth of them stand in a block of Python and are run."""
    name = f"code/livecodebench?path={DATA / 'livecodebench.jsonl'}"
    verdicts = judged(name, get_task(name).evaluation_prompts(1)[0], hostile_answers(count, seed=4))
    assert sum(verdict.measures["ended"] != "no code" for verdict in verdicts) > count / 20
