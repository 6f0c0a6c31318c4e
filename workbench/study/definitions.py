"""Studies as data: what each notebook about a paper compares, and what it claims (`papers/*.yaml`).

`papers/arms.yaml` says how every arm differs from plain GRPO; a study names arms, so that a run is shared by all
studies that need it. Everything is checked when it is read.
"""

from __future__ import annotations

import dataclasses
from functools import cache
from importlib.resources import files
from typing import Any

import yaml
from pydantic import Field

from workbench.config import ConfigError, Section, make_section, nearest
from workbench.study.claims import Claim
from workbench.study.effects import EFFECTS, Effect

FOLDER = files("workbench.study") / "papers"
_CLAIM_FIELDS = ("id", "sentence", "source", "published", "kind", "reading")


class Definition(Section):
    """A study: the question of one paper, the arms that answer it, and its claims."""

    title: str
    paper: str = Field(description="arXiv id, or 'several'")
    figures: str
    question: str
    answer: str = Field(description="what the paper found")
    note: str = ""
    arms: tuple[str, ...]
    published: dict[str, str] = Field(default_factory=dict, description="arm -> name of its published entropy curve")
    further: dict[str, dict[str, str]] = Field(
        default_factory=dict, description="what else was published: its name here -> arm -> name of the curve"
    )
    measures: tuple[str, ...] = ("entropy", "avg", "pass@16")
    claims: tuple[dict[str, Any], ...] = ()


@cache
def arms() -> dict[str, dict[str, Any]]:
    """Arm -> dotted overrides of plain GRPO."""
    return _read("arms")


def study_names() -> list[str]:
    """Names of all studies, in order."""
    return sorted(path.name.removesuffix(".yaml") for path in FOLDER.iterdir() if path.name[0].isdigit())


@cache
def definition(name: str) -> Definition:
    """The study `name`. Raises `ConfigError` naming the nearest one, or what is wrong with its definition."""
    if name not in study_names():
        raise ConfigError(f"there is no study '{name}'{nearest(name, study_names())}")
    found = make_section(Definition, _read(name))
    named = (*found.arms, *found.published, *(arm for curves in found.further.values() for arm in curves))
    unknown = [arm for arm in named if arm not in arms()]
    if unknown:
        raise ConfigError(f"study {name}: there is no arm '{unknown[0]}'{nearest(unknown[0], list(arms()))}")
    for claim in claims(name, found):
        missing = [arm for arm in claim.arms if arm not in found.arms]
        if missing:
            raise ConfigError(
                f"study {name}, claim {claim.identifier}: its arm '{missing[0]}' is not among the study's"
            )
    return found


def claims(name: str, found: Definition | None = None) -> list[Claim]:
    """The claims of a study. Identifiers are `<study>/<id>`."""
    found = found or definition(name)
    return [_claim(name, found.paper, dict(given)) for given in found.claims]


def _claim(study: str, paper: str, given: dict[str, Any]) -> Claim:
    kinds = [key for key in given if key not in _CLAIM_FIELDS]
    if len(kinds) != 1 or kinds[0] not in EFFECTS:
        raise ConfigError(
            f"study {study}: claim {given.get('id')} needs one effect of {', '.join(EFFECTS)}, has {kinds}"
        )
    source = str(given["source"]) if paper == "several" else f"{paper}, {given['source']}"
    effect = make_effect(kinds[0], given[kinds[0]])
    identifier = f"{study}/{given['id']}"
    further = {name: given[name] for name in ("published", "kind", "reading") if name in given}
    return Claim(identifier, given["sentence"], source, effect, **further)


def make_effect(kind: str, given: list | dict) -> Effect:
    """An effect from its arguments, in order or by name. Raises `ConfigError` for arguments it does not take."""
    names = [field.name for field in dataclasses.fields(EFFECTS[kind])]
    values = dict(given) if isinstance(given, dict) else dict(zip(names, given, strict=False))
    unknown = set(values) - set(names) or (len(given) > len(names) and {str(given)})
    if unknown:
        raise ConfigError(f"effect '{kind}' takes {', '.join(names)}, not {', '.join(sorted(unknown))}")
    return EFFECTS[kind](**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})


def _read(name: str) -> dict[str, Any]:
    return yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))
