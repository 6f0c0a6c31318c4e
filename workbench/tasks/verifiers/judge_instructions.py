"""Whether a response follows verifiable instructions: the checkers of IFEval (arXiv 2311.07911) as if-verifiable ships
them, in the strict and the loose reading.

The package's own `__init__` is passed by, since it also loads another benchmark, whose module downloads data when it is
imported.
"""

import importlib.util
import random
import sys
import types

import langdetect.detector_factory

_found = importlib.util.find_spec("if_verifiable")
_package = types.ModuleType("if_verifiable")
_package.__path__ = list(_found.submodule_search_locations)
sys.modules["if_verifiable"] = _package

from if_verifiable.common import get_loose_transformations  # noqa: E402
from if_verifiable.ifeval.instructions_registry import INSTRUCTION_DICT  # noqa: E402

langdetect.detector_factory.DetectorFactory.seed = 0  # it draws random numbers
langdetect.detector_factory.init_factory()


def _checker(instruction: str, arguments: dict):
    """The checker of one instruction; what `arguments` leave open it would draw at random, so the seed is set."""
    random.seed(0)
    checker = INSTRUCTION_DICT[instruction](instruction)
    checker.build_description(**{name: value for name, value in arguments.items() if value is not None})
    return checker


def faults(requests: list[list]) -> list[str]:
    """What is wrong with each [instructions, arguments]; '' for those that can be judged."""
    return [_fault(*request) for request in requests]


def _fault(instructions: list[str], arguments: list[dict]) -> str:
    if not instructions or len(instructions) != len(arguments):
        return f"{len(instructions)} instructions with {len(arguments)} sets of arguments"
    for instruction, given in zip(instructions, arguments, strict=True):
        if instruction not in INSTRUCTION_DICT:
            return f"unknown instruction '{instruction}'; known: {', '.join(INSTRUCTION_DICT)}"
        try:
            _checker(instruction, given)
        except Exception as error:
            return f"instruction '{instruction}' with {given}: {error}"
    return ""


def judge(instructions: list[str], arguments: list[dict], response: str) -> dict:
    """{"strict": [bool per instruction], "loose": the same}. An empty response follows nothing; one on which a checker
    fails does not follow that instruction."""
    checkers = [_checker(name, given) for name, given in zip(instructions, arguments, strict=True)]
    variants = get_loose_transformations(response)
    strict = [_follows(checker, response) for checker in checkers]
    loose = [any(_follows(checker, variant) for variant in dict.fromkeys(variants)) for checker in checkers]
    return {"strict": strict, "loose": loose}


def _follows(checker, text: str) -> bool:
    if not text.strip():
        return False
    try:
        return bool(checker.check_following(text))
    except MemoryError:  # the process is to be replaced
        raise
    except Exception as error:
        if type(error) is LookupError:  # NLTK's word for data that are not installed
            raise
        return False
