"""What the policy reads: templates, chat, system prompt, and which sets they are for."""

import pytest

from workbench.config import ConfigError, TaskConfig
from workbench.tasks import Prompt, get_task
from workbench.tasks.chat import ask
from workbench.tasks.naming import parse_name

REDUCE = Prompt("1+2=", "reduce", "3")
MATH = Prompt("1+2?", "math/aime24", "3")


class Chatty:
    """A tokenizer with a chat template, as far as it is needed here."""

    chat_template = "…"

    def apply_chat_template(self, messages, *, tokenize, add_generation_prompt):
        assert not tokenize and add_generation_prompt
        return "".join(f"<{m['role']}>{m['content']}" for m in messages) + "<assistant>"


def asked(prompt, tokenizer=None, **settings):
    return ask([prompt], TaskConfig(**settings), tokenizer)[0]


def test_bundled_tasks_ask_their_bare_prompts():
    assert asked(REDUCE) == REDUCE.text


def test_a_family_s_own_template_says_where_the_answer_goes():
    assert asked(MATH) == "1+2?\nPlease reason step by step, and put your final answer within \\boxed{}."


def test_the_config_s_template_is_for_the_family_it_trains_on():
    settings = {"name": "math/dapo", "prompt_template": "Q: {prompt}\nA: {"}
    assert asked(MATH, **settings) == "Q: 1+2?\nA: {"
    assert asked(REDUCE, **settings) == "1+2="


def test_chat_is_for_every_set_and_the_system_prompt_for_the_family():
    settings = {"name": "reduce-long", "chat_template": True, "system_prompt": "Be brief."}
    assert asked(REDUCE, Chatty(), **settings) == "<system>Be brief.<user>1+2=<assistant>"
    assert asked(MATH, Chatty(), **settings) == f"<user>{asked(MATH)}<assistant>"


def test_a_tokenizer_without_chat_template_is_refused():
    with pytest.raises(ConfigError, match="no chat template"):
        asked(REDUCE, object(), chat_template=True)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"system_prompt": "Hi"}, "set task.chat_template"),
        ({"prompt_template": "no place"}, "exactly once"),
        ({"prompt_template": "{prompt}{prompt}"}, "exactly once"),
    ],
)
def test_formats_that_cannot_be_meant_are_refused(settings, said):
    with pytest.raises(ValueError, match=said):
        TaskConfig(**settings)


def test_names_carry_options():
    name = parse_name("math/amc23?path=data/a%26b.jsonl&level=[1, 2]")
    assert (name.family, name.set) == ("math", "amc23")
    assert name.options == {"path": "data/a&b.jsonl", "level": [1, 2]}
    for wrong in ("math", "math/", "/amc", "math/amc?", "math/amc?path", "math/amc?a=1&a=2", "math/amc?a=["):
        with pytest.raises(ValueError, match=r"of the form|not valid YAML"):
            parse_name(wrong)


def test_every_set_is_one_object():
    assert get_task("math/amc23") is get_task("math/amc23")
