"""The procedural data sets of reasoning-gym, by name, at a stated difficulty, judged by their own scorers.

`reasoning-gym/chain_sum` has the data set's default parameters, `…?level=2` those of its curriculum at that level,
`…?min_terms=4&max_terms=6` the ones given. Questions and verdicts are made in processes of their own
(`workbench.tasks.answers`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import lru_cache
from hashlib import blake2b

from workbench.config import ConfigError, nearest
from workbench.tasks.answers import SECONDS, Job, Outcome, pool
from workbench.tasks.base import Prompt, Split, Task, Verdict, split_of
from workbench.tasks.final_answer import storable, tagged
from workbench.tasks.naming import SetName

CHUNK = 256
"""Entries of one data set object; a list of prompts goes through objects of seeds that depend on its place alone."""
BATCH = 8
"""Entries made per request."""
GENERATION_SECONDS = 300.0
"""CPU time of one request; the slowest data sets take seconds per question."""
MAX_ANSWER = 10_000
EXHAUSTED = 3 * CHUNK
"""Entries in a row without a new question after which a data set counts as used up."""


@dataclass(frozen=True)
class Reasoning(Task):
    """One data set; reward 1 iff the answer between the last `<answer>` tags gets the data set's full score.

    Measures: `score` (the data set's own, in [0, 1], often with credit for a nearly right answer) and `judged` (false
    where the scorer failed or exceeded its bound; such an answer counts as wrong). A fifth of all questions, by hash,
    is held out of training.
    """

    name: str
    dataset: str
    parameters: dict[str, object] = field(hash=False)
    max_response_tokens: int = 1024
    out_of_domain: tuple[str, ...] = ()
    prompt_template: str = "{prompt}\nProvide your final answer between <answer> and </answer> tags."

    def train_prompts(self, count: int, seed: int) -> list[Prompt]:
        return list(_first(self._questions(f"train/{seed}", "train"), count))

    def evaluation_prompts(self, count: int) -> list[Prompt]:
        return list(_first(self._questions("evaluation", "evaluation"), count))

    def _questions(self, stream: str, split: Split) -> Iterator[Prompt]:
        """Distinct questions of one split, until `EXHAUSTED` entries in a row bring nothing new."""
        seen: set[str] = set()
        idle = chunk = 0
        while idle < EXHAUSTED:
            seed = int.from_bytes(blake2b(f"{self.dataset}/{stream}/{chunk}".encode(), digest_size=4).digest()) >> 1
            for entry in self._entries(seed):
                text = entry["question"]
                if text in seen or split_of(text) != split:
                    idle += 1
                    continue
                idle = 0
                seen.add(text)
                yield Prompt(text, self.name, entry["answer"], data=entry["entry"])
            chunk += 1

    def _entries(self, seed: int) -> Iterator[dict]:
        for first in range(0, CHUNK, BATCH):
            place = {"seed": seed, "size": CHUNK, "first": first, "count": BATCH}
            job = Job("generate", {"name": self.dataset, "parameters": self.parameters, **place}, GENERATION_SECONDS)
            outcome = pool("generate").run([job])[0]
            if not isinstance(outcome.result, list):
                raise ConfigError(f"'{self.name}' could not make its questions: {outcome.error}")
            yield from outcome.result

    def verify(self, prompt: Prompt, response_text: str) -> Verdict:
        return self.verify_all([prompt], [response_text])[0]

    def verify_all(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> list[Verdict]:
        answers = [tagged(response) for response in responses]
        rows = [row for row, answer in enumerate(answers) if 0 < len(answer) <= MAX_ANSWER]
        jobs = [self._job(prompts[row], answers[row]) for row in rows]
        outcomes = dict(zip(rows, pool().run(jobs), strict=True))
        return [_verdict(answer, outcomes.get(row, Outcome(0.0))) for row, answer in enumerate(answers)]

    def _job(self, prompt: Prompt, answer: str) -> Job:
        where = {"name": self.dataset, "parameters": self.parameters, "entry": prompt.data}
        return Job("reasoning", {**where, "candidate": answer}, SECONDS)


def _verdict(answer: str, outcome: Outcome) -> Verdict:
    score = float(outcome.result) if isinstance(outcome.result, float | int) else 0.0
    correct = score >= 1.0
    return Verdict(
        float(correct), correct, storable(answer[:MAX_ANSWER]), {"score": score, "judged": not outcome.error}
    )


def _first(prompts: Iterator[Prompt], count: int) -> Iterator[Prompt]:
    for _ in range(count):
        prompt = next(prompts, None)
        if prompt is None:
            return
        yield prompt


@lru_cache(maxsize=1)
def datasets() -> dict[str, type]:
    """Names of reasoning-gym's data sets -> the class of their parameters."""
    import reasoning_gym
    from reasoning_gym.factory import DATASETS

    assert reasoning_gym  # importing it fills the registry
    return {name: parameters for name, (_, parameters) in DATASETS.items() if name != "composite"}


def make_task(name: SetName) -> Reasoning:
    """The task of `reasoning-gym/<data set>`. Raises `ValueError` for an unknown data set, level or parameter."""
    known = datasets()
    if name.set not in known:
        raise ValueError(f"unknown data set 'reasoning-gym/{name.set}'{nearest(name.set, known)}")
    given = dict(name.options)
    level = given.pop("level", None)
    parameters = {**(_of_level(name.set, level) if level is not None else {}), **given}
    allowed = {each.name for each in fields(known[name.set])} - {"seed", "size"}
    for key in parameters:
        if key not in allowed:
            raise ValueError(f"unknown parameter '{key}' of '{name.set}'{nearest(key, sorted(allowed))}")
    try:
        made = known[name.set](**parameters)
        getattr(made, "validate", lambda: None)()
    except (AssertionError, TypeError, ValueError) as error:
        raise ValueError(
            f"'{name.full}': reasoning-gym refuses these parameters: {error or type(error).__name__}"
        ) from None
    return Reasoning(name.full, name.set, parameters)


def _of_level(name: str, level: object) -> dict[str, object]:
    """What the data set's curriculum changes at `level` (0, 1, …; levels above an attribute's last take its last)."""
    from reasoning_gym.factory import create_curriculum, has_curriculum

    if not has_curriculum(name):
        raise ValueError(f"'{name}' has no curriculum; state its parameters in place of a level")
    if type(level) is not int or level < 0:
        raise ValueError(f"level {level!r} of '{name}' must be a whole number from 0")
    curriculum = create_curriculum(name)
    curriculum.set_global_level(level)
    made = asdict(curriculum.generate_configuration())
    plain = asdict(datasets()[name]())
    return {key: value for key, value in made.items() if key not in ("seed", "size") and plain.get(key) != value}
