r"""Mathematics: published sets of problems with a final answer, judged by math-verify in a bounded process.

`math/dapo`, `math/math` and `math/gsm8k` can be trained on; the rest are evaluation sets. `?path=FILE` reads the set's
schema from a local file in place of the hub.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from random import Random

from workbench.config import ConfigError, nearest
from workbench.tasks.answers import SECONDS, Job, pool
from workbench.tasks.base import Prompt, Task, Verdict
from workbench.tasks.final_answer import as_latex, braced, final_answer, storable, whole_number
from workbench.tasks.hub import Source, load_records
from workbench.tasks.naming import SetName

DAPO_BEFORE = (
    "Solve the following math problem step by step. The last line of your response should be of the form Answer: "
    "$Answer (without quotes) where $Answer is the answer to the problem.\n\n"
)
DAPO_AFTER = '\n\nRemember to put your answer on its own line after "Answer:".'
"""What the published DAPO-Math-17k wraps every problem in; taken off, since the template is the config's."""


@dataclass(frozen=True)
class MathSet:
    """Where a set's training and evaluation problems are on the hub; None where it has none."""

    train: Source | None = None
    evaluation: Source | None = None


SETS = {
    "dapo": MathSet(train=Source("BytedTsinghua-SIA/DAPO-Math-17k", "train")),
    "math": MathSet(
        Source("DigitalLearningGmbH/MATH-lighteval", "train"), Source("DigitalLearningGmbH/MATH-lighteval", "test")
    ),
    "gsm8k": MathSet(Source("openai/gsm8k", "train", "main"), Source("openai/gsm8k", "test", "main")),
    "math500": MathSet(evaluation=Source("HuggingFaceH4/MATH-500", "test")),
    "aime24": MathSet(evaluation=Source("HuggingFaceH4/aime_2024", "train")),
    "aime25": MathSet(evaluation=Source("math-ai/aime25", "test")),
    "amc23": MathSet(evaluation=Source("math-ai/amc23", "test")),
    "minerva": MathSet(evaluation=Source("math-ai/minervamath", "test")),
    "olympiadbench": MathSet(evaluation=Source("Hothan/OlympiadBench", "train", "OE_TO_maths_en_COMP")),
}
"""Hub ids and splits (K): from memory of the hub, not checked against it."""

QUESTION_FIELDS = ("problem", "question", "prompt", "Problem")
ANSWER_FIELDS = ("answer", "final_answer", "Answer", "expected_answer")


@dataclass(frozen=True)
class Mathematics(Task):
    """Problems whose answer is a number or an expression; reward 1 iff the response's final answer means the same.

    Measures: `boxed` (the answer stood in a box) and `judged` (false where the comparison exceeded its bound; such an
    answer counts as wrong). Equality is math-verify's: six digits of a decimal suffice, `x = 7` is 7, and so is `7\\%`.
    `answer` is canonical: 1/2 and 0.5 are different texts of one value and may differ, 27 and
    27.0 do not.
    """

    name: str
    set: MathSet
    path: str = ""
    max_response_tokens: int = 4096
    out_of_domain: tuple[str, ...] = ()
    prompt_template: str = "{prompt}\nPlease reason step by step, and put your final answer within \\boxed{}."

    def train_prompts(self, count: int, seed: int) -> list[Prompt]:
        """`count` problems in an order of the seed's. Raises `ConfigError` for a set that is for evaluation."""
        if self.set.train is None:
            raise ConfigError(f"'{self.name}' is an evaluation set; train on one of {', '.join(_with('train'))}")
        prompts = list(_prompts(self.name, self.set.train, self.path))
        Random(f"{self.name.partition('?')[0]}/train/{seed}").shuffle(prompts)
        return prompts[:count]

    def evaluation_prompts(self, count: int) -> list[Prompt]:
        """The first `count` problems. Raises `ConfigError` for a set that is for training."""
        if self.set.evaluation is None:
            raise ConfigError(f"'{self.name}' has no evaluation problems; take one of {', '.join(_with('evaluation'))}")
        return list(_prompts(self.name, self.set.evaluation, self.path))[:count]

    def verify(self, prompt: Prompt, response_text: str) -> Verdict:
        return self.verify_all([prompt], [response_text])[0]

    def verify_all(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> list[Verdict]:
        verdicts = [_at_once(prompt, response) for prompt, response in zip(prompts, responses, strict=True)]
        open_ = [row for row, verdict in enumerate(verdicts) if isinstance(verdict, _Open)]
        asked = {(prompts[row].answer, verdicts[row].answer) for row in open_}
        jobs = {
            pair: Job("math", {"gold": as_latex(pair[0]), "candidate": as_latex(pair[1])}, SECONDS)
            for pair in sorted(asked)
        }
        outcomes = dict(zip(jobs, pool().run(list(jobs.values())), strict=True))
        for row in open_:
            given = verdicts[row]
            outcome = outcomes[prompts[row].answer, given.answer]
            found = outcome.result if isinstance(outcome.result, dict) else {"correct": False, "key": ""}
            verdicts[row] = _verdict(found["correct"], found["key"] or given.answer, given.boxed, not outcome.error)
        return verdicts


@dataclass(frozen=True)
class _Open:
    """An answer that only math-verify can judge."""

    answer: str
    boxed: bool


def _at_once(prompt: Prompt, response: str) -> Verdict | _Open:
    """The verdict where none or two whole numbers have to be compared."""
    answer, boxed = final_answer(response)
    if not answer:
        return _verdict(False, "", False, True)
    given, expected = whole_number(answer), whole_number(prompt.answer)
    if given is not None and expected is not None:
        return _verdict(given == expected, given, boxed, True)
    return _Open(answer, boxed)


def _verdict(correct: bool, answer: str, boxed: bool, judged: bool) -> Verdict:
    return Verdict(float(correct), correct, storable(answer), {"boxed": boxed, "judged": judged})


@lru_cache(maxsize=16)
def _prompts(name: str, source: Source, path: str) -> tuple[Prompt, ...]:
    """Distinct problems, in the data set's order."""
    prompts: dict[str, Prompt] = {}
    for number, record in enumerate(load_records(name, source, path), 1):
        text, answer = question_of(record), answer_of(record)
        if not text or not answer:
            missing = f"a question ({', '.join(QUESTION_FIELDS)})" if not text else "an answer"
            raise ConfigError(f"record {number} of '{path or source.hub}' lacks {missing}; its fields: {list(record)}")
        prompts.setdefault(text, Prompt(text, name, answer))
    return tuple(prompts.values())


def question_of(record: dict) -> str:
    """The bare problem: the first of `QUESTION_FIELDS`, of a chat its user's messages, without DAPO's wrapping."""
    found = next((record[name] for name in QUESTION_FIELDS if record.get(name)), "")
    if isinstance(found, list):
        found = "\n".join(message["content"] for message in found if message.get("role") == "user")
    return str(found).removeprefix(DAPO_BEFORE).removesuffix(DAPO_AFTER).strip()


def answer_of(record: dict) -> str:
    """The expected answer: `reward_model.ground_truth`, one of `ANSWER_FIELDS` (what follows `####`, several joined by
    commas), or the last box of `solution`; '' if there is none."""
    truth = (record.get("reward_model") or {}).get("ground_truth")
    found = next((record[name] for name in ANSWER_FIELDS if record.get(name) not in (None, "", [])), truth)
    if isinstance(found, list):
        return ", ".join(str(part).strip() for part in found)
    if found is not None:
        text = str(found).rpartition("####")[2].strip()
        return braced(text, 7) if text.startswith("\\boxed{") else text
    solution = str(record.get("solution") or "")
    place = solution.rfind("\\boxed{")
    return braced(solution, place + 7) if place >= 0 else ""


def _with(split: str) -> list[str]:
    return [f"math/{name}" for name, each in SETS.items() if getattr(each, split) is not None]


def make_task(name: SetName) -> Mathematics:
    """The task of `math/<set>`, optionally with `?path=`. Raises `ValueError` for another set or option."""
    if name.set not in SETS:
        raise ValueError(f"unknown set 'math/{name.set}'{nearest(name.set, SETS)}")
    unknown = set(name.options) - {"path"}
    if unknown:
        raise ValueError(f"'{name.full}': math sets have one option, path; got {', '.join(sorted(unknown))}")
    return Mathematics(name.full, SETS[name.set], str(name.options.get("path", "")))
