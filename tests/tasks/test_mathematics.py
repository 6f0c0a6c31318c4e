"""Mathematics: every set's schema is read, answers are found and compared, missing data is explained."""

import json
from pathlib import Path

import pytest

from workbench.config import ConfigError
from workbench.tasks import Prompt, get_task
from workbench.tasks.final_answer import MAX_RESPONSE, final_answer, tagged, whole_number
from workbench.tasks.mathematics import SETS

DATA = Path(__file__).parent.parent / "data"
FILES = {path.stem: path for path in DATA.iterdir()}


def local(name, file=None):
    return get_task(f"math/{name}?path={file or FILES[name]}")


def problems(name):
    task = local(name)
    return task, task.train_prompts(99, seed=0) if task.set.evaluation is None else task.evaluation_prompts(99)


@pytest.mark.parametrize("name", SETS)
def test_every_set_reads_its_schema_and_accepts_its_own_answers(name):
    task, prompts = problems(name)
    assert len(prompts) >= 20
    right = task.verify_all(prompts, [f"So it is $\\boxed{{{prompt.answer}}}$." for prompt in prompts])
    wrong = task.verify_all(prompts, ["So it is $\\boxed{-1234567}$."] * len(prompts))
    assert all(verdict.correct and verdict.measures == {"boxed": True, "judged": True} for verdict in right)
    assert not any(verdict.correct for verdict in wrong)


def test_dapo_is_unwrapped_and_its_repetitions_are_one_problem():
    _, prompts = problems("dapo")
    assert len(prompts) == 24  # the file has each three times
    assert all(prompt.text.startswith("What is the sum") and prompt.text.endswith("?") for prompt in prompts)


def test_training_order_depends_on_the_seed_and_evaluation_order_on_nothing():
    task = local("math")
    assert task.train_prompts(24, 1) == task.train_prompts(24, 1) != task.train_prompts(24, 2)
    assert task.train_prompts(5, 1) == task.train_prompts(24, 1)[:5]
    first = json.loads(FILES["math"].read_text().split("\n")[0])["problem"]
    assert task.evaluation_prompts(1)[0].text == first


def test_evaluation_sets_are_not_trained_on_nor_the_reverse():
    with pytest.raises(ConfigError, match=r"'math/aime24.*' is an evaluation set; train on one of math/dapo"):
        local("aime24").train_prompts(1, 0)
    with pytest.raises(ConfigError, match="has no evaluation problems"):
        local("dapo").evaluation_prompts(1)


@pytest.mark.parametrize(
    ("expected", "response", "correct"),
    [
        ("\\frac{1}{2}", "\\boxed{0.5}", True),
        ("\\frac{1}{2}", "\\boxed{\\dfrac{2}{4}}", True),
        ("\\frac{1}{2}", "\\boxed{2}", False),
        ("3\\sqrt{13}", "\\boxed{\\sqrt{117}}", True),
        ("(-3,3)", "\\boxed{(-3, 3)}", True),
        ("(-3,3)", "\\boxed{[-3, 3]}", False),
        ("3e11", "\\boxed{3 \\times 10^{11}}", True),
        ("3e11", "\\boxed{3 \\times 10^{12}}", False),
        ("1024", "first \\boxed{7}, then \\boxed{1,024}", True),
        ("1024", "first \\boxed{1024}, then \\boxed{7}", False),
        ("1024", "\\boxed{1024", False),
        ("55", "Answer: $55$", True),
        ("055", "#### 55", True),
        ("55", "adding up, we get 55", True),
        ("55", "adding up, we get 5", False),
        ("55", "55 of 56", False),
        ("7", "\\boxed{1,2,3,4,5,6,7,8}", False),
        ("7", "Answer: 3} or \\boxed{7", False),
        ("7", "\\boxed{\\{7, 8\\}}", False),
        ("7", "٧", False),
        ("7", "", False),
    ],
)
def test_answers_that_mean_the_same_are_equal(expected, response, correct):
    assert get_task("math/math500").verify(Prompt("?", "math/math500", expected), response).correct is correct


def test_answers_of_one_meaning_have_one_text():
    task, prompt = get_task("math/amc23"), Prompt("?", "math/amc23", "27.0")
    responses = ["\\boxed{27}", "\\boxed{27.0}", "\\boxed{027}", "so 27", "\\boxed{$27$}"]
    assert {verdict.answer for verdict in task.verify_all([prompt] * 5, responses)} == {"27"}


def test_where_a_final_answer_is_looked_for():
    assert final_answer("\\boxed{\\frac{1}{2}}") == ("\\frac{1}{2}", True)
    assert final_answer("\\boxed{a\\}b}") == ("a\\}b", True)
    assert final_answer("\\fbox {3}") == ("3", False)
    assert final_answer("**Final answer:** 12.") == ("12", False)
    assert final_answer("costs $1,250.75 in all") == ("1,250.75", False)
    assert final_answer("x" * MAX_RESPONSE + "7") == ("", False)
    assert final_answer("9" * 5000) == ("", False)
    assert tagged("<answer>a</answer> <answer> b </answer>") == "b"
    assert tagged("<answer>a") == tagged("a</answer>") == ""


def test_whole_numbers_are_ascii_and_canonical():
    forms = {"007": "7", "1,024": "1024", "-0": "0", "+3.000": "3", "12,34": None, "1.5": None, "²": None, "٣": None}
    assert {text: whole_number(text) for text in forms} == forms


def test_a_hub_that_cannot_be_reached_is_explained(monkeypatch):
    import datasets

    def unreachable(*_arguments, **_options):
        raise ConnectionError("Couldn't reach the Hub")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    with pytest.raises(ConfigError, match=r"hf download --repo-type dataset math-ai/amc23.*'math/amc23\?path=FILE'"):
        get_task("math/amc23").evaluation_prompts(1)


def test_records_from_the_hub_are_used_as_they_come(monkeypatch):
    import datasets

    asked = []
    rows = [{"problem": "1+1?", "answer": "2", "id": "0"}]
    monkeypatch.setattr(
        datasets, "load_dataset", lambda *a, **k: asked.append((a, k)) or datasets.Dataset.from_list(rows)
    )
    prompts = get_task("math/aime25").evaluation_prompts(5)
    assert [(prompt.text, prompt.answer) for prompt in prompts] == [("1+1?", "2")]
    assert asked == [(("math-ai/aime25", None), {"split": "test"})]


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("a.csv", "x", "must end in one of"),
        ("a.jsonl", "{", "cannot be read"),
        ("a.jsonl", "", "at least one record"),
        ("a.json", '{"problem": 1}', "at least one record"),
        ("a.jsonl", '{"text": "?"}', r"record 1 .* lacks a question \(problem, question"),
        ("a.jsonl", '{"problem": "?"}', "lacks an answer"),
        ("a.parquet", "no parquet", "cannot be read"),
    ],
)
def test_files_that_are_not_of_the_schema_are_refused(tmp_path, file, content, said):
    (tmp_path / file).write_text(content)
    with pytest.raises(ConfigError, match=said):
        local("math500", tmp_path / file).evaluation_prompts(1)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("math/aime42", "did you mean 'aime24'|did you mean 'aime25'"),
        ("math/aime24?level=3", "one option, path"),
        ("math/aime24?path", "option=value"),
        ("math/", "family/set"),
        ("mathh/aime24", "unknown task 'mathh/aime24'"),
    ],
)
def test_unknown_names_are_refused_before_anything_is_loaded(name, said):
    with pytest.raises(ConfigError, match=said):
        get_task(name)
