"""`code/livecodebench`: the schema, reading tests without executing them, extraction, and verdicts by running."""

import base64
import json
import pickle
import sys
import zlib
from pathlib import Path

import pytest

from workbench.config import ConfigError
from workbench.tasks import code, code_cases, get_task
from workbench.tasks.code import extract_code
from workbench.tasks.code_cases import pickled_string, same_output, same_result, unpacked_tests
from workbench.tasks.hub import load_records
from workbench.tasks.sandbox import SandboxUnavailable, why_unavailable

DATA = Path(__file__).parent.parent / "data"
FILE = DATA / "livecodebench.jsonl"
SOLUTIONS = {
    entry["question_id"]: entry["solution"]
    for entry in map(json.loads, (DATA / "livecodebench_solutions.jsonl").read_text().splitlines())
}
TASK = get_task(f"code/livecodebench?path={FILE}")
PROMPTS = {prompt.answer: prompt for prompt in TASK.evaluation_prompts(1000)}
SUM, TWO_SUM = PROMPTS["abc3000_a"], next(prompt for prompt in PROMPTS.values() if prompt.data.function == "twoSum")
available = pytest.mark.skipif(why_unavailable() is not None, reason=f"no sandbox: {why_unavailable()}")


def fenced(program, language="python"):
    return f"Here it is:\n```{language}\n{program}\n```\nDone."


def ended(prompt, program):
    verdict = TASK.verify(prompt, fenced(program))
    assert verdict.correct == (verdict.measures["ended"] == "passed") == bool(verdict.reward)
    return verdict.measures["ended"]


def test_the_file_has_both_kinds_of_tests_and_both_encodings():
    assert len(PROMPTS) == 22
    assert {bool(prompt.data.function) for prompt in PROMPTS.values()} == {True, False}
    assert {prompt.data.private[:1] for prompt in PROMPTS.values()} == {"[", "e"}
    assert all(len(code_cases.cases(prompt.data)) >= 2 for prompt in PROMPTS.values())


def test_prompts_ask_for_a_program_or_for_the_given_function():
    assert SUM.text.startswith("Read two integers a and b") and "stdin" in SUM.text
    assert "def twoSum(self, nums: List[int], target: int)" in TWO_SUM.text and "stdin" not in TWO_SUM.text


@available
def test_every_reference_solution_passes():
    prompts = list(PROMPTS.values())
    verdicts = TASK.verify_all(prompts, [fenced(SOLUTIONS[prompt.answer]) for prompt in prompts])
    assert [verdict.measures["ended"] for verdict in verdicts] == ["passed"] * len(prompts)
    assert all(
        verdict.reward == 1.0 and verdict.measures["passed"] == verdict.measures["tests"] for verdict in verdicts
    )


@available
def test_every_solution_of_another_problem_fails():
    prompts = list(PROMPTS.values())
    solutions = [SOLUTIONS[prompt.answer] for prompt in prompts]
    verdicts = TASK.verify_all(prompts, [fenced(solution) for solution in solutions[1:] + solutions[:1]])
    assert not any(verdict.correct for verdict in verdicts)


@available
def test_how_a_program_failed_is_told():
    assert ended(SUM, "print(3)") == "wrong"
    assert ended(SUM, "raise ValueError") == "error"
    assert ended(SUM, "syntax error here") == "error"
    assert ended(SUM, "print(\ud800)") == "error"
    assert ended(SUM, "while True: print('x' * 100_000)") == "output"
    assert ended(SUM, "import os; os._exit(0)") == "wrong"
    assert ended(TWO_SUM, "class Solution: pass") == "error"
    assert ended(TWO_SUM, "class Solution:\n    def twoSum(self, nums, target): return (0, 2)") == "wrong"


@available
def test_a_slow_program_is_ended_by_its_cpu_time(monkeypatch):
    monkeypatch.setattr(code, "LIMITS", code.Limits(cpu_s=0.3))
    assert ended(SUM, "while True: pass") == "cpu"


@available
def test_right_answers_in_other_forms_pass():
    assert ended(SUM, "a, b = map(int, input().split())\nprint(f'  {a + b:.2f} ')\n\n\n") == "passed"
    assert ended(SUM, "if __name__ == '__main__':\n    print(sum(map(int, sys.stdin.read().split())))") == "passed"
    pairs = "next(pair for pair in combinations(range(len(nums)), 2) if nums[pair[0]] + nums[pair[1]] == target)"
    assert ended(TWO_SUM, f"def twoSum(nums, target):\n    print('noise')\n    return {pairs}") == "passed"


@available
@pytest.mark.skipif(sys.prefix.startswith("/tmp/"), reason="the sandbox hides /tmp, where this environment lies")
def test_programs_may_import_packages():
    imports = "from __future__ import annotations\nimport numpy\n"
    assert ended(SUM, imports + "print(numpy.array(input().split(), int).sum())") == "passed"


@available
def test_a_program_cannot_find_the_expected_answers():
    spy = "import os\nprint(os.listdir('/program'), open('/program/run.py').read(), sys.argv, dict(os.environ))"
    verdict = TASK.verify(SUM, fenced(spy))
    assert verdict.measures["ended"] == "wrong"
    assert ended(TWO_SUM, "import os\nos.write(1, b'true')\nos._exit(0)") == "wrong"


@available
def test_programs_that_behave_alike_share_their_answer():
    answers = [
        TASK.verify(SUM, fenced(program)).answer
        for program in ("print(3)", "x = 3\nprint(x)", "print(4)", "print(sum(map(int, input().split())))")
    ]
    assert answers[0] == answers[1]
    assert len(set(answers)) == 3 and all(answers)


def test_without_a_program_nothing_runs(monkeypatch):
    monkeypatch.setattr(code, "Sandbox", lambda *_: pytest.fail("something was run"))
    for response in (
        "",
        "print(3)",
        "```python\nprint(3)",
        "```\n```",
        "\0",
        "`" * 10_000_000,
        "```python\n" * 100_000,
    ):
        verdict = TASK.verify(SUM, response)
        assert (verdict.reward, verdict.answer, verdict.measures["ended"]) == (0.0, "", "no code")


def test_where_programs_cannot_be_confined_none_is_run(monkeypatch):
    monkeypatch.setattr(code, "why_unavailable", lambda: "no namespaces")
    monkeypatch.setattr(code, "Sandbox", lambda *_: pytest.fail("something was run"))
    with pytest.raises(SandboxUnavailable, match="are not run: no namespaces"):
        TASK.verify(SUM, fenced("print(3)"))


@pytest.mark.parametrize(
    ("response", "program"),
    [
        ("```python\na\n```", "a"),
        ("```python\na\n```\ntext\n```python\nb\nc\n```", "b\nc"),
        ("```Python3\na\n```\n```text\nb\n```", "a"),
        ("```\na\n```\n```\nb\n```", "b"),
        ("```py\na\n```\n```\nb\n```", "a"),
        ("  ```python\n  a\n  ```", "  a"),
        ("```cpp\na\n```", ""),
        ("```python\na", ""),
        ("```python\na\n```python\nb\n```", "b"),
        ("````python\na\n````", "a"),
    ],
)
def test_the_program_is_the_last_python_block(response, program):
    assert extract_code(response) == program


@pytest.mark.parametrize(
    ("written", "expected", "same"),
    [
        ("3", "3\n", True),
        (" 3 \n 4 ", "3\n4", True),
        ("3.0 4", "3 4.00", True),
        ("1e2", "100", True),
        ("0.1", "0.10000000000000001", False),
        ("50000000000000000", "50000000000000001", False),
        ("3\n\n4", "3\n4", False),
        ("", "3", False),
        ("3", "", False),
        ("", "", True),
        ("nan", "NaN", False),
        ("sNaN", "3", False),
        ("1_0", "10", False),
        ("٣", "3", False),
        ("1e999999999", "1e999999998", False),
        ("Yes", "yes", False),
        ("9" * 1_000_000, "9" * 1_000_001, False),
    ],
)
def test_outputs_are_compared_by_line_and_number(written, expected, same):
    assert same_output(written, expected) is same


@pytest.mark.parametrize(
    ("written", "expected", "same"),
    [
        ("[1, 2]", "[1,2]", True),
        ("1.0", "1", True),
        ('"1"', "1", False),
        ("[1", "[1", False),
        ("", "null", False),
        ("NaN", "NaN", False),
        ("[" * 100_000, "[]", False),
        ("9" * 100_000, "9", False),
    ],
)
def test_results_are_compared_as_json(written, expected, same):
    assert same_result(written, expected) is same


def packed(content, protocol=4):
    return base64.b64encode(zlib.compress(pickle.dumps(content, protocol))).decode()


class Malicious:
    def __reduce__(self):
        return (Path("/tmp/never-created-by-a-pickle").touch, ())


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_private_tests_are_read_whatever_the_pickle_protocol(protocol):
    text = json.dumps([{"input": "ü\n", "output": "x" * 70_000, "testtype": "stdin"}], ensure_ascii=False)
    assert unpacked_tests(packed(text, protocol)) == text


@pytest.mark.parametrize("content", [Malicious(), [Malicious()], {"a": 1}, ["x"], b"x", 5, ("x", "y"), None])
def test_a_pickle_of_anything_but_one_string_is_refused_and_not_executed(content):
    with pytest.raises(ValueError, match="pickled tests are"):
        unpacked_tests(packed(content))
    assert not Path("/tmp/never-created-by-a-pickle").exists()


@pytest.mark.parametrize("text", ["?", "AAAA", "x" * 1000, base64.b64encode(b"no zlib").decode()])
def test_text_that_is_neither_json_nor_packed_is_refused(text):
    with pytest.raises(ValueError, match=r"neither JSON nor|cut off"):
        unpacked_tests(text)


def test_a_zip_bomb_and_a_cut_off_file_are_refused(monkeypatch):
    monkeypatch.setattr(code_cases, "MAX_TESTS_BYTES", 1 << 20)
    with pytest.raises(ValueError, match="more than 1 MB"):
        unpacked_tests(packed("x" * (1 << 21)))
    cut = base64.b64encode(zlib.compress(pickle.dumps("x" * 1000))[:-8]).decode()
    with pytest.raises(ValueError, match="cut off"):
        unpacked_tests(cut)
    with pytest.raises(ValueError, match="not one plain string"):
        pickled_string(b"\x8c\xffabc")


def test_the_window_of_contest_dates_is_chosen_by_options():
    def dates(options):
        task = get_task(f"code/livecodebench?path={FILE}{options}")
        return len(task.evaluation_prompts(1000))

    assert dates("&start=2024-09-01") == 16
    assert dates("&end=2024-08-31") == 6
    assert dates("&start=2024-08-02&end=2024-08-03") == 2
    with pytest.raises(ConfigError, match="no problem with a contest date"):
        dates("&start=2030-01-01")


def test_wrong_names_options_files_and_uses_are_explained(tmp_path):
    with pytest.raises(ConfigError, match="did you mean 'livecodebench'"):
        get_task("code/livecodebenc")
    with pytest.raises(ConfigError, match="the options are path, start and end; got window"):
        get_task("code/livecodebench?window=5")
    with pytest.raises(ConfigError, match="evaluation set"):
        TASK.train_prompts(1, 0)
    (tmp_path / "x.jsonl").write_text('{"question_content": "a", "question_id": "b", "public_test_cases": "?"}\n')
    with pytest.raises(ConfigError, match=r"record 1 of .* has no text in private_test_cases"):
        get_task(f"code/livecodebench?path={tmp_path / 'x.jsonl'}").evaluation_prompts(1)


def test_the_published_files_are_read_together(tmp_path):
    lines = FILE.read_text().splitlines()
    (tmp_path / "test.jsonl").write_text("\n".join(lines[:12]))
    (tmp_path / "test2.jsonl").write_text("\n".join(lines[12:]))
    prompts = get_task(f"code/livecodebench?path={tmp_path}/test*.jsonl").evaluation_prompts(1000)
    assert [prompt.answer for prompt in prompts] == list(PROMPTS)
    with pytest.raises(ConfigError, match="no data file is named"):
        get_task(f"code/livecodebench?path={tmp_path}/x*.jsonl").evaluation_prompts(1)


def test_from_the_hub_the_files_are_read_without_the_loading_script(monkeypatch):
    import datasets

    asked, records = [], [json.loads(line) for line in FILE.read_text().splitlines()]
    monkeypatch.setattr(
        datasets, "load_dataset", lambda *a, **k: asked.append((a, k)) or datasets.Dataset.from_list(records)
    )
    code._prompts.cache_clear()
    load_records.cache_clear()
    assert len(get_task("code/livecodebench").evaluation_prompts(1000)) == 22
    load_records.cache_clear()
    code._prompts.cache_clear()
    files = "hf://datasets/livecodebench/code_generation_lite/test*.jsonl"
    assert asked == [(("json",), {"data_files": files, "split": "train"})]


def test_without_the_hub_it_says_what_to_do(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ConfigError, match=r"livecodebench/code_generation_lite.*\?path=FILE"):
        get_task("code/livecodebench").evaluation_prompts(1)
