"""What the policy reads: a question in its template and, if the config says so, in the tokenizer's chat template."""

from __future__ import annotations

from collections.abc import Iterable

from workbench.config import ConfigError, TaskConfig
from workbench.tasks import get_task
from workbench.tasks.base import Prompt


def ask(prompts: Iterable[Prompt], settings: TaskConfig, tokenizer) -> list[str]:
    """The text of each prompt as the policy gets it.

    The config's `prompt_template` and `system_prompt` are for the family it trains on (`math` in `math/dapo`): other
    sets keep their own template, since what they ask must reach the policy unaltered. The chat template, a property of
    the policy, is for all. Raises `ConfigError` if the tokenizer has none.
    """
    if settings.chat_template and not getattr(tokenizer, "chat_template", None):
        raise ConfigError("task.chat_template is true, but the policy's tokenizer has no chat template; unset it")
    return [_asked(prompt, settings, tokenizer) for prompt in prompts]


def _asked(prompt: Prompt, settings: TaskConfig, tokenizer) -> str:
    at_home = family(prompt.task) == family(settings.name)
    template = (settings.prompt_template if at_home else "") or get_task(prompt.task).prompt_template
    text = template.replace("{prompt}", prompt.text)
    if not settings.chat_template:
        return text
    messages = [{"role": "system", "content": settings.system_prompt}] if at_home and settings.system_prompt else []
    messages.append({"role": "user", "content": text})
    return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)


def family(name: str) -> str:
    """`math` of `math/aime24`, `reduce` of `reduce-long`."""
    return name.partition("/")[0] if "/" in name else name.partition("-")[0]
