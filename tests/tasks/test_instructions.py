"""`instructions/ifeval`: every kind of instruction, strictly and loosely, against verdicts written by hand."""

import json
from functools import partial
from pathlib import Path

import nltk.data
import pytest

from workbench.config import ConfigError
from workbench.tasks import get_task, instructions
from workbench.tasks.answers import Outcome, Pool
from workbench.tasks.base import Verdict
from workbench.tasks.instructions import NEED_SENTENCES

DATA = Path(__file__).parent.parent / "data"
FILE = DATA / "ifeval.jsonl"
RECORDS = [json.loads(line) for line in FILE.read_text().splitlines()]
RESPONSES = [json.loads(line) for line in (DATA / "ifeval_responses.jsonl").read_text().splitlines()]
TASK = get_task(f"instructions/ifeval?path={FILE}")


@pytest.fixture(scope="module")
def prompts():
    return dict(zip((record["key"] for record in RECORDS), TASK.evaluation_prompts(1000), strict=True))


@pytest.fixture(scope="module")
def sentence_model(tmp_path_factory):
    """A directory for NLTK_DATA with a sentence model that knows one abbreviation."""
    folder = tmp_path_factory.mktemp("nltk")
    model = folder / "tokenizers" / "punkt_tab" / "english"
    model.mkdir(parents=True)
    for name in ("collocations.tab", "sent_starters.txt", "ortho_context.tab"):
        (model / name).write_text("")
    (model / "abbrev_types.txt").write_text("mr")
    return folder


def needs_sentences(prompt):
    return bool(set(prompt.data.instructions) & NEED_SENTENCES)


def check(prompts, responses, verdicts):
    for response, verdict in zip(responses, verdicts, strict=True):
        strict, loose = response["strict"], response["loose"]
        expected = {"instructions": len(strict), "followed": sum(strict), "followed_loose": sum(loose)}
        assert verdict.measures == {**expected, "loose": all(loose), "judged": True}, response
        assert verdict == Verdict(float(all(strict)), all(strict), "", verdict.measures)
    assert len(prompts) == len(responses) > 0


def test_the_file_has_every_kind_of_instruction(prompts):
    kinds = {name for prompt in prompts.values() for name in prompt.data.instructions}
    assert len(kinds) == 25 and len(prompts) >= 20
    assert {record["key"] for record in RECORDS} == {response["key"] for response in RESPONSES}


def test_strict_and_loose_verdicts_are_those_written_by_hand(prompts):
    asked = [response for response in RESPONSES if not needs_sentences(prompts[response["key"]])]
    given = [prompts[response["key"]] for response in asked]
    check(given, asked, TASK.verify_all(given, [response["response"] for response in asked]))


def test_instructions_about_sentences_are_judged_with_the_sentence_model(prompts, sentence_model, monkeypatch):
    monkeypatch.setenv("NLTK_DATA", str(sentence_model))
    monkeypatch.setattr(nltk.data, "path", [str(sentence_model)])
    fresh = Pool(1)
    monkeypatch.setattr(instructions, "pool", lambda: fresh)
    asked = [response for response in RESPONSES if needs_sentences(prompts[response["key"]])]
    given = [prompts[response["key"]] for response in asked]
    try:
        check(given, asked, TASK.verify_all(given, [response["response"] for response in asked]))
    finally:
        fresh.close()


def test_without_the_sentence_model_it_says_what_to_do(prompts, monkeypatch):
    monkeypatch.setattr(nltk.data, "path", [])
    prompt = next(prompt for prompt in prompts.values() if needs_sentences(prompt))
    with pytest.raises(ConfigError, match=r"number_sentences needs NLTK's sentence model.*nltk.downloader punkt_tab"):
        TASK.verify(prompt, "One. Two.")


def test_the_verdict_does_not_depend_on_chance(prompts):
    prompt = next(prompt for prompt in prompts.values() if "language:response_language" in prompt.data.instructions)
    short = "Na ja, gut so."  # too short to be certain of
    assert len({TASK.verify(prompt, short).correct for _ in range(5)}) == 1


HOSTILE = {
    "nested brackets": "[" * 10_000,
    "open brackets": "<<" * 10_000,
    "asterisks": "*" * 20_000,
    "digits": "9" * 20_000,
    "new lines": "\n" * 20_000,
    "blanks": " \t" * 10_000,
    "nul": "\0",
    "surrogate": "\ud800 sun moon",
    "evaluated": "__import__('os').system('true')",
    "too long": "sun moon cake " * 1_000_000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_responses_get_a_verdict_from_every_kind_of_instruction(prompts, name):
    asked = [prompt for prompt in prompts.values() if not needs_sentences(prompt)]
    for verdict in TASK.verify_all(asked, [HOSTILE[name]] * len(asked)):
        assert (
            0 <= verdict.measures["followed"] <= verdict.measures["followed_loose"] <= verdict.measures["instructions"]
        )
        assert verdict.measures["judged"] or not verdict.correct


@pytest.mark.slow
def test_a_checker_that_takes_too_long_is_ended(prompts, monkeypatch):
    prompt = next(prompt for prompt in prompts.values() if prompt.data.instructions == ("detectable_format:title",))
    monkeypatch.setattr(instructions, "Job", partial(instructions.Job, seconds=0.2))
    verdict = TASK.verify(prompt, "<<" * 200_000)  # takes the checker's pattern time that grows with the square
    assert (verdict.reward, verdict.measures["followed_loose"], verdict.measures["judged"]) == (0.0, 0, False)


def test_what_cannot_be_judged_within_its_bound_follows_nothing(prompts, monkeypatch):
    class Late:
        def run(self, jobs):
            return [Outcome(error="time") for _ in jobs]

    monkeypatch.setattr(instructions, "pool", Late)
    verdict = TASK.verify(prompts[2001], "It rains.")
    assert (verdict.reward, verdict.measures["followed_loose"], verdict.measures["judged"]) == (0.0, 0, False)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"prompt": "x"}, "record 1 of .* needs 'prompt'"),
        ({"prompt": "x", "instruction_id_list": ["a:b"], "kwargs": [{}]}, "unknown instruction 'a:b'; known: keywords"),
        ({"prompt": "x", "instruction_id_list": ["punctuation:no_comma"], "kwargs": []}, "1 instructions with 0 sets"),
        ({"prompt": "x", "instruction_id_list": [], "kwargs": []}, "0 instructions with 0 sets"),
        (
            {"prompt": "x", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{"wrong": 1}]},
            "'punctuation:no_comma' with {'wrong': 1}.*unexpected keyword",
        ),
    ],
)
def test_records_that_cannot_be_judged_are_refused_when_they_are_read(record, message, tmp_path):
    (tmp_path / "x.jsonl").write_text(json.dumps(record))
    with pytest.raises(ConfigError, match=message):
        get_task(f"instructions/ifeval?path={tmp_path / 'x.jsonl'}").evaluation_prompts(1)


def test_wrong_names_options_and_uses_are_explained():
    with pytest.raises(ConfigError, match="did you mean 'ifeval'"):
        get_task("instructions/ifevl")
    with pytest.raises(ConfigError, match="the only option is path; got split"):
        get_task("instructions/ifeval?split=test")
    with pytest.raises(ConfigError, match="evaluation set"):
        TASK.train_prompts(1, 0)


def test_without_the_hub_it_says_what_to_do(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ConfigError, match=r"google/IFEval.*\?path=FILE"):
        get_task("instructions/ifeval").evaluation_prompts(1)
