"""`code/livecodebench`: programming problems, judged by running the response's program on the problem's tests.

Programs run in the sandbox alone (`workbench.tasks.sandbox`); where it cannot be had, none is run. What a program
should have answered never enters the sandbox: outputs are compared outside, so a program is right only by computing it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b

from workbench.config import ConfigError, nearest
from workbench.tasks.base import Prompt, Task, Verdict
from workbench.tasks.code_cases import Case, Problem, cases, same_output, same_result, unpacked_tests
from workbench.tasks.hub import Source, load_records
from workbench.tasks.naming import SetName
from workbench.tasks.sandbox import Limits, Sandbox, SandboxUnavailable, python, site_packages, why_unavailable

SETS = {"livecodebench": Source("livecodebench/code_generation_lite", files="test*.jsonl")}
"""Hub id (K). The published set comes with a loading script, which `datasets` no longer runs, so its files are read as
they are: all of them, which is what the script calls `release_latest`."""
FIELDS = ("question_content", "question_id", "public_test_cases", "private_test_cases")
LANGUAGES = ("python", "python3", "py")
MAX_CODE = 200_000  # characters of a program
LIMITS = Limits(cpu_s=6.0, wall_s=30.0)  # per test; 6 s as in LiveCodeBench (S), but of CPU time
PROGRAM_SECONDS = 60.0  # CPU time of one program over all tests together
MODULES = (
    *("string", "re", "datetime", "collections", "heapq", "bisect", "copy", "math", "random", "statistics"),
    *("itertools", "functools", "operator", "io", "sys", "json", "builtins", "typing"),
)
"""What a solution finds imported, since contest sites import them and models rely on it (S: LiveCodeBench)."""

RUNNER = """
import json, os, sys, types
function, modules, packages = json.loads(sys.argv[1])
sys.path += packages
sys.setrecursionlimit(50000)
sys.stdin.reconfigure(errors="surrogateescape")
solution = types.ModuleType("solution" if function else "__main__")
sys.modules[solution.__name__] = solution
for name in modules:
    exec(f"from {name} import *\\nimport {name}", solution.__dict__)
with open("/program/solution.py", encoding="utf-8") as file:
    program = compile(file.read(), "solution.py", "exec")
if not function:
    exec(program, solution.__dict__)
    sys.exit()
reply = os.dup(1)
os.dup2(os.open("/dev/null", os.O_WRONLY), 1)
arguments = [json.loads(line) for line in sys.stdin.read().split("\\n")]
exec(program, solution.__dict__)
place = solution.Solution() if hasattr(solution, "Solution") else solution
result = getattr(place, function)(*arguments)
reply = os.fdopen(reply, "w")
json.dump(result, reply, default=lambda value: value.tolist() if hasattr(value, "tolist") else list(value))
reply.close()
"""
ON_STDIN = (
    "Write a Python program that reads the input from stdin and prints the answer to stdout. Put the whole program "
    "into one code block:\n\n```python\n# your program\n```"
)
WITH_FUNCTION = "Complete the following Python code and put all of it into one code block:\n\n```python\n{}\n```"
"""How the answer is asked for (I): in our own words, so scores are not those of LiveCodeBench's own prompt."""


@dataclass(frozen=True)
class Code(Task):
    """Programming problems; reward 1 iff the program in the response's last Python block passes all tests.

    `answer` is a digest of what the program wrote on the tests up to the first failure: programs that behave alike
    share it; '' without a program. Measures: `passed` and `tests` (counts; testing stops at the first failure) and
    `ended`: `passed`, `no code`, `wrong`, `error`, or the limit that was exceeded (`cpu`, `time`, `memory`, `output`,
    `lost`).

    `start` and `end` (ISO dates, inclusive) choose a window of contest dates.
    """

    name: str
    source: Source
    path: str = ""
    start: str = ""
    end: str = ""
    max_response_tokens: int = 4096
    out_of_domain: tuple[str, ...] = ()

    def train_prompts(self, count: int, seed: int) -> list[Prompt]:
        """Raises `ConfigError`: the set is for evaluation."""
        raise ConfigError(f"'{self.name}' is an evaluation set")

    def evaluation_prompts(self, count: int) -> list[Prompt]:
        """The first `count` problems of the window."""
        return list(_prompts(self.name, self.source, self.path, self.start, self.end))[:count]

    def require(self, prompts: Sequence[Prompt]) -> None:
        """Raise `SandboxUnavailable`, with the reason, where no program can be run."""
        if reason := why_unavailable():
            raise SandboxUnavailable(f"the programs of '{self.name}' are not run: {reason}")

    def verify(self, prompt: Prompt, response_text: str) -> Verdict:
        """Run the program on the tests. Raises `SandboxUnavailable` as `require` does."""
        return self.verify_all([prompt], [response_text])[0]

    def verify_all(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> list[Verdict]:
        programs = [extract_code(response) for response in responses]
        asked = {(prompt.data, program) for prompt, program in zip(prompts, programs, strict=True) if program}
        if asked:
            self.require(prompts)
        with ThreadPoolExecutor(max(1, min(4, os.cpu_count() or 1))) as threads:
            verdicts = dict(zip(asked, threads.map(lambda pair: judge(*pair), asked), strict=True))
        nothing = Verdict(0.0, False, "", {"passed": 0, "ended": "no code"})
        found = [
            verdicts.get((prompt.data, program), nothing) for prompt, program in zip(prompts, programs, strict=True)
        ]
        counts = [len(cases(prompt.data)) for prompt in prompts]
        return [
            Verdict(verdict.reward, verdict.correct, verdict.answer, {**verdict.measures, "tests": count})
            for verdict, count in zip(found, counts, strict=True)
        ]


def extract_code(response: str) -> str:
    """The program in the last fenced block that says Python, or, if none does, in the last that names no language; ''
    if there is none, if its fence is not closed, or if it is longer than `MAX_CODE`."""
    found: dict[str, str] = {}
    language, block = None, []
    for line in response.split("\n"):
        fence = line.strip()
        if not fence.startswith("```"):
            block.append(line)
        elif language is not None and not fence.strip("`"):
            found[language] = "\n".join(block)
            language = None
        else:
            named = fence.strip("`").strip().lower()
            language, block = ("python" if named in LANGUAGES else named), []
    program = found.get("python", found.get("", ""))
    return program if len(program) <= MAX_CODE and program.strip() else ""


def judge(problem: Problem, program: str) -> Verdict:
    """Run a program on a problem's tests, one fresh process each, until one fails."""
    settings = json.dumps([problem.function, MODULES, site_packages()])
    files = {"run.py": RUNNER, "solution.py": program}
    digest, passed, seconds, ended = blake2b(digest_size=6), 0, 0.0, "passed"
    with Sandbox(files, python("run.py", settings), LIMITS) as sandbox:
        for case in cases(problem):
            outcome = sandbox.run(case.given)
            written = outcome.stdout.decode("utf-8", "backslashreplace")
            digest.update(f"{outcome.ended} {outcome.status} {written.strip()}\0".encode())
            seconds += outcome.cpu_s
            ended = _ended(problem, case, outcome.ended, outcome.status, written)
            if ended == "passed" and seconds > PROGRAM_SECONDS:
                ended = "cpu"
            if ended != "passed":
                break
            passed += 1
    correct = ended == "passed"
    return Verdict(float(correct), correct, digest.hexdigest(), {"passed": passed, "ended": ended})


def _ended(problem: Problem, case: Case, ended: str, status: int | None, written: str) -> str:
    if ended != "exit":
        return ended
    if status != 0:
        return "error"
    same = same_result if problem.function else same_output
    return "passed" if same(written, case.expected) else "wrong"


@lru_cache(maxsize=8)
def _prompts(name: str, source: Source, path: str, start: str, end: str) -> tuple[Prompt, ...]:
    records = load_records(name, source, path)
    prompts = [
        _prompt(name, record, f"record {number} of '{path or source.hub}'")
        for number, record in records_in(records, start, end)
    ]
    if not prompts:
        raise ConfigError(f"'{name}' has no problem with a contest date in the window '{start}' to '{end}'")
    return tuple(prompts)


def records_in(records: Sequence[dict], start: str, end: str) -> list[tuple[int, dict]]:
    """The records, numbered from 1, whose contest date (its day) lies in the window; '' leaves a side open."""
    dated = [(number, record, str(record.get("contest_date") or "")[:10]) for number, record in enumerate(records, 1)]
    return [(number, record) for number, record, day in dated if start <= day and (not end or day <= end)]


def _prompt(name: str, record: dict, place: str) -> Prompt:
    missing = [field for field in FIELDS if not isinstance(record.get(field), str)]
    if missing:
        raise ConfigError(f"{place} has no text in {', '.join(missing)}; its fields: {list(record)}")
    try:
        metadata = json.loads(record.get("metadata") or "{}")
        function = str(metadata.get("func_name") or "")
        json.loads(unpacked_tests(record["public_test_cases"]))
    except (ValueError, AttributeError, RecursionError) as error:
        raise ConfigError(f"{place} cannot be read: {error}") from None
    starter = str(record.get("starter_code") or "")
    form = WITH_FUNCTION.format(starter) if starter.strip() else ON_STDIN
    problem = Problem(record["public_test_cases"], record["private_test_cases"], function)
    return Prompt(f"{record['question_content']}\n\n{form}", name, record["question_id"], problem)


def make_task(name: SetName) -> Code:
    """The task of `code/<set>`, options path, start and end. Raises `ValueError` for another set or option."""
    if name.set not in SETS:
        raise ValueError(f"unknown set 'code/{name.set}'{nearest(name.set, SETS)}")
    unknown = set(name.options) - {"path", "start", "end"}
    if unknown:
        raise ValueError(f"'{name.full}': the options are path, start and end; got {', '.join(sorted(unknown))}")
    return Code(name.full, SETS[name.set], **{key: str(value) for key, value in name.options.items()})
