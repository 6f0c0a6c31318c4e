"""Mathematical answers compared by math-verify. Its LaTeX grammar is read; its use of `sympy.parse_expr` is not."""

import logging
from functools import lru_cache

import math_verify.parser
import sympy
from math_verify import LatexExtractionConfig, parse, verify

logging.disable(logging.CRITICAL)


def _refused(*_arguments, **_options):
    raise ValueError("text is not evaluated")


math_verify.parser.parse_expr = _refused  # only reached by plain-expression extraction, which evaluates text

LATEX = [LatexExtractionConfig(boxed_match_priority=0)]
MAX_KEY = 200


@lru_cache(maxsize=4096)
def _parsed(answer: str) -> tuple:
    return tuple(parse(rf"\boxed{{{answer}}}", extraction_config=LATEX, parsing_timeout=None))


def judge(gold: str, candidate: str) -> dict:
    """{"correct": whether the two mean the same, "key": canonical text of the candidate, '' if it has no meaning}."""
    expected, given = _parsed(gold), _parsed(candidate)
    correct = bool(expected and given) and verify(list(expected), list(given), timeout_seconds=None)
    return {"correct": bool(correct), "key": _key(given)}


def _key(parsed: tuple) -> str:
    if not parsed:
        return ""
    value = parsed[0]
    if isinstance(value, sympy.Float) and value.is_finite and value == int(value):
        value = int(value)
    return str(value)[:MAX_KEY]
