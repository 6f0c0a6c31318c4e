"""What every task shares: prompts, verdicts, the train/evaluation split, and the unskilled solver's habits."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from random import Random
from typing import Literal

from pydantic import Field

from workbench.config import Section

Split = Literal["train", "evaluation"]

MAX_VALUE = 99  # every number in a prompt or a response is one token, 0-99
MAX_TEXT = 1000  # characters of a response a verifier reads; the longest honest response is far shorter
EVALUATION_SHARE = 0.2  # of all prompts of a task, held out of training and of pre-training
NUMBER = "(?:0|[1-9][0-9]?)"  # ASCII only (never \d, which takes any Unicode digit), no leading zeros
OPERATORS = "+-*"


@dataclass(frozen=True)
class Prompt:
    """One question: its `text`, the `task` (name of the set) it belongs to, the `answer` its verifier expects, and
    whatever else that verifier needs (`data`). What the policy reads is made of it by `workbench.tasks.chat`."""

    text: str
    task: str
    answer: str
    data: object = field(default=None, repr=False, compare=False)


@dataclass(frozen=True)
class Verdict:
    """What a verifier says of one response: `reward` (0 or 1), `correct`, the final `answer` as text ('' if none could
    be found; responses with equal answers mean the same), and the task's further `measures`."""

    reward: float
    correct: bool
    answer: str
    measures: dict[str, object] = field(default_factory=dict)


class Solver(Section):
    """Habits of the unskilled solver whose traces the base policy is pre-trained on."""

    wrong_precedence: float = Field(
        0.15, ge=0, le=1, description="reduce: probability per step of taking an operator not yet due"
    )
    slip: float = Field(0.12, ge=0, le=1, description="probability per step of writing a wrong result")
    give_up: float = Field(0.20, ge=0, le=1, description="countdown: probability of giving up after a missed attempt")
    max_attempts: int = Field(4, ge=1, le=4, description="countdown: attempts after which the solver always gives up")


class Task(ABC):
    """One data set: its training prompts, its evaluation prompts, its verifier.

    `max_response_tokens` bounds a response where the config states no bound; `out_of_domain` names sets to evaluate on
    beside it; `prompt_template` is how its questions are put to a policy unless the config says otherwise.
    """

    name: str
    max_response_tokens: int
    out_of_domain: tuple[str, ...]
    prompt_template: str = "{prompt}"

    @abstractmethod
    def train_prompts(self, count: int, seed: int) -> list[Prompt]:
        """`count` training prompts, a function of `seed` alone; fewer if the data set has no more."""

    @abstractmethod
    def evaluation_prompts(self, count: int) -> list[Prompt]:
        """The first `count` prompts of one fixed list, none of which is a training prompt; fewer if it has no more."""

    def require(self, prompts: Sequence[Prompt]) -> None:  # noqa: B027 (most tasks need nothing)
        """Raise if this machine cannot judge responses to `prompts`, with the reason and the remedy; asked before
        anything is sampled."""

    @abstractmethod
    def verify(self, prompt: Prompt, response_text: str) -> Verdict:
        """Judge any string, however hostile, in bounded time and memory; never raises, never evaluates it."""

    def verify_all(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> list[Verdict]:
        """`verify` of each prompt's response; a task whose verifier works in processes of its own uses several."""
        return [self.verify(prompt, response) for prompt, response in zip(prompts, responses, strict=True)]


class ProceduralTask(Task):
    """A member of a bundled family: draws prompts from a space of its own, writes an unskilled solver's traces."""

    @abstractmethod
    def propose(self, rng: Random) -> Prompt:
        """A random prompt, whichever split it belongs to."""

    @abstractmethod
    def trace(self, prompt: Prompt, solver: Solver, rng: Random) -> str:
        """A response as the unskilled `solver` would write it, end mark included."""

    def split_key(self, prompt: Prompt) -> str:
        """What decides the split; prompts that are the same question in another order share it."""
        return prompt.text

    def split(self, prompt: Prompt) -> Split:
        """The split of a prompt, from a stable hash of its key: the same in every process and version."""
        return split_of(self.split_key(prompt))

    def draw(self, rng: Random, split: Split) -> Prompt:
        """A random prompt of one split."""
        while True:
            prompt = self.propose(rng)
            if self.split(prompt) == split:
                return prompt

    def train_prompts(self, count: int, seed: int) -> list[Prompt]:
        """`count` training prompts, a function of `seed` alone; repeats only once the task's space is used up."""
        return self._distinct(count, Random(f"{self.name}/train/{seed}"), "train")

    def evaluation_prompts(self, count: int) -> list[Prompt]:
        """The first `count` prompts of one fixed list of held-out prompts."""
        return self._distinct(count, Random(f"{self.name}/evaluation"), "evaluation")

    def _distinct(self, count: int, rng: Random, split: Split) -> list[Prompt]:
        prompts: list[Prompt] = []
        seen: set[str] = set()
        repeats = 0
        while len(prompts) < count:
            prompt = self.draw(rng, split)
            if prompt.text in seen:
                repeats += 1
                if repeats > 1000:  # in a row: practically every prompt of the space has been used
                    seen.clear()
                continue
            repeats = 0
            seen.add(prompt.text)
            prompts.append(prompt)
        return prompts


def split_of(key: str) -> Split:
    """The split a key falls in by its hash; `EVALUATION_SHARE` of all keys are held out of training."""
    digest = blake2b(key.encode(errors="surrogatepass"), digest_size=4).digest()
    return "evaluation" if int.from_bytes(digest) < EVALUATION_SHARE * 2**32 else "train"


def apply(left: int, operator: str, right: int) -> int:
    """The exact value of one operation."""
    if operator == "+":
        return left + right
    if operator == "-":
        return left - right
    return left * right


def in_range(value: int) -> bool:
    """Whether a value can be written at all."""
    return 0 <= value <= MAX_VALUE


def slipped(value: int, rng: Random) -> int:
    """A wrong result: as often a near miss (miscounted by one or two, a forgotten carry) as any number at all."""
    near = [value + offset for offset in (-10, -2, -1, 1, 2, 10) if in_range(value + offset)]
    anything = [number for number in range(MAX_VALUE + 1) if number != value]
    return rng.choice(rng.choice((near, anything)))
