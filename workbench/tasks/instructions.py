"""`instructions/ifeval`: prompts with instructions that a program can check (arXiv 2311.07911).

The checkers are those of the IFEval authors, as the package if-verifiable ships them; they run in a bounded process.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from workbench.config import ConfigError, nearest
from workbench.tasks.answers import Job, pool
from workbench.tasks.base import Prompt, Task, Verdict
from workbench.tasks.hub import Source, load_records
from workbench.tasks.naming import SetName

SETS = {"ifeval": Source("google/IFEval", "train")}
"""Hub ids (K)."""
MAX_CHARACTERS = 400_000  # of a response that is judged; 32k tokens of English are about 150 000
LOADING_SECONDS = 60.0  # CPU time for a look at all instructions of a file
NEED_SENTENCES = {"length_constraints:number_sentences", "change_case:capital_word_frequency"}
"""Instructions whose checkers split text into sentences with NLTK's trained model."""
SENTENCE_MODEL = "tokenizers/punkt_tab/english"


@dataclass(frozen=True)
class Request:
    """The instructions of a prompt and the arguments of each, as JSON values."""

    instructions: tuple[str, ...]
    arguments: tuple[dict, ...]


@dataclass(frozen=True)
class Instructions(Task):
    """Prompts with verifiable instructions; reward 1 iff all of them are followed, strictly (prompt-level, strict).

    Strict: the response as it is. Loose: at least one of eight variants follows, without `*`, without the first line,
    without the last, and all combinations (S). `answer` is '': texts have no final answer to agree on. Measures:
    `instructions` (how many the prompt has), `followed` and `followed_loose` (how many of them are followed), `loose`
    (all of them are, loosely), and `judged` (false where checking exceeded its bound; such a response follows nothing).
    `workbench.metrics.instruction_table` makes the four published accuracies of them.
    """

    name: str
    source: Source
    path: str = ""
    max_response_tokens: int = 4096
    out_of_domain: tuple[str, ...] = ()

    def train_prompts(self, count: int, seed: int) -> list[Prompt]:
        """Raises `ConfigError`: the set is for evaluation."""
        raise ConfigError(f"'{self.name}' is an evaluation set")

    def evaluation_prompts(self, count: int) -> list[Prompt]:
        """The first `count` prompts."""
        return list(_prompts(self.name, self.source, self.path))[:count]

    def require(self, prompts: Sequence[Prompt]) -> None:
        """Raise `ConfigError` where a checker's data are not installed."""
        require_sentence_model({name for prompt in prompts for name in prompt.data.instructions})

    def verify(self, prompt: Prompt, response_text: str) -> Verdict:
        """Judge a response. Raises `ConfigError` as `require` does."""
        return self.verify_all([prompt], [response_text])[0]

    def verify_all(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> list[Verdict]:
        self.require(prompts)
        jobs: dict[tuple[int, str], Job] = {}
        for prompt, response in zip(prompts, responses, strict=True):
            if response.strip() and len(response) <= MAX_CHARACTERS:
                jobs.setdefault((id(prompt.data), response), _job(prompt.data, response))
        outcomes = dict(zip(jobs, pool().run(list(jobs.values())), strict=True))
        verdicts = []
        for prompt, response in zip(prompts, responses, strict=True):
            outcome = outcomes.get((id(prompt.data), response))
            found = outcome.result if outcome is not None and isinstance(outcome.result, dict) else None
            judged = found is not None or not response.strip()
            verdicts.append(_verdict(len(prompt.data.instructions), found or {"strict": [], "loose": []}, judged))
        return verdicts


def _job(request: Request, response: str) -> Job:
    asked = {"instructions": request.instructions, "arguments": request.arguments, "response": response}
    return Job("instructions", asked)


def _verdict(count: int, found: dict[str, list[bool]], judged: bool) -> Verdict:
    followed, followed_loose = sum(found["strict"]), sum(found["loose"])
    correct = followed == count
    measures = {"instructions": count, "followed": followed, "followed_loose": followed_loose}
    return Verdict(float(correct), correct, "", {**measures, "loose": followed_loose == count, "judged": judged})


def require_sentence_model(instructions: set[str]) -> None:
    """Raise `ConfigError` if an instruction needs NLTK's sentence model and it is not installed."""
    needed = sorted(instructions & NEED_SENTENCES)
    if not needed:
        return
    import nltk.data  # slow to import, and few need it

    try:
        nltk.data.find(SENTENCE_MODEL)
    except LookupError:
        raise ConfigError(
            f"checking {' and '.join(needed)} needs NLTK's sentence model. With network, run "
            f"`python -m nltk.downloader punkt_tab`; without, bring the folder 'punkt_tab' of "
            f"https://github.com/nltk/nltk_data to DIRECTORY/tokenizers and set NLTK_DATA=DIRECTORY"
        ) from None


@lru_cache(maxsize=8)
def _prompts(name: str, source: Source, path: str) -> tuple[Prompt, ...]:
    place = path or source.hub
    records = load_records(name, source, path)
    prompts = [_prompt(name, record, f"record {number} of '{place}'") for number, record in enumerate(records, 1)]
    asked = [[prompt.data.instructions, prompt.data.arguments] for prompt in prompts]
    outcome = pool().run([Job("instruction_faults", {"requests": asked}, LOADING_SECONDS)])[0]
    if outcome.error:
        raise ConfigError(f"the instructions of '{place}' could not be looked through ({outcome.error})")
    for number, fault in enumerate(outcome.result, 1):
        if fault:
            raise ConfigError(f"record {number} of '{place}': {fault}")
    return tuple(prompts)


def _prompt(name: str, record: dict, place: str) -> Prompt:
    text, instructions, arguments = (record.get(field) for field in ("prompt", "instruction_id_list", "kwargs"))
    right = isinstance(text, str) and isinstance(instructions, list) and isinstance(arguments, list)
    if not right or not all(isinstance(each, dict) for each in arguments):
        raise ConfigError(
            f"{place} needs 'prompt' (text), 'instruction_id_list' (list) and 'kwargs' (list of mappings); "
            f"its fields: {list(record)}"
        )
    return Prompt(text, name, "", Request(tuple(map(str, instructions)), tuple(arguments)))


def make_task(name: SetName) -> Instructions:
    """The task of `instructions/<set>`, optionally with `?path=`. Raises `ValueError` for another set or option."""
    if name.set not in SETS:
        raise ValueError(f"unknown set 'instructions/{name.set}'{nearest(name.set, SETS)}")
    unknown = set(name.options) - {"path"}
    if unknown:
        raise ValueError(f"'{name.full}': the only option is path; got {', '.join(sorted(unknown))}")
    return Instructions(name.full, SETS[name.set], str(name.options.get("path", "")))
