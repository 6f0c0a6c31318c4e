"""Names of data sets: `family/set?option=value&…`. A name says everything its prompts and its verifier depend on."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import unquote

import yaml


@dataclass(frozen=True)
class SetName:
    """A name taken apart: `math/aime24?path=aime.jsonl` is family `math`, set `aime24`, options {path: aime.jsonl}."""

    full: str
    family: str
    set: str
    options: dict[str, object]


def parse_name(name: str) -> SetName:
    """Take a name apart; options are YAML values (`2`, `[3, 4]`, `true`), in which `%26` stands for `&`.

    Raises `ValueError` for a name without family and set, an option without a value, or one given twice.
    """
    path, question_mark, query = name.partition("?")
    family, slash, chosen = path.partition("/")
    if not (family and slash and chosen):
        raise ValueError(f"'{name}' is not of the form family/set or family/set?option=value&…")
    options: dict[str, object] = {}
    for assignment in query.split("&") if question_mark else []:
        key, equals, value = assignment.partition("=")
        if not (key and equals) or key in options:
            raise ValueError(f"the options of '{name}' are not of the form option=value&option=value, each given once")
        try:
            options[key] = yaml.safe_load(unquote(value))
        except yaml.YAMLError:
            raise ValueError(f"the value of option '{key}' of '{name}' is not valid YAML") from None
    return SetName(name, family, chosen, options)
