"""Problems of the LiveCodeBench schema: their tests, read without executing anything, and the comparison of outputs."""

from __future__ import annotations

import base64
import binascii
import json
import pickletools
import re
import zlib
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache

MAX_TESTS_BYTES = 1 << 29  # of one problem's private tests, unpacked; the largest published are some 100 MB
MAX_NUMBER = 400  # characters of a number that is compared as a number and not as text
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,4})?")
_TEXT_OPCODES = {"PROTO", "FRAME", "MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT", "STOP"}
_STRINGS = {"SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "UNICODE"}


@dataclass(frozen=True)
class Case:
    """One test: what is given and what is expected. Of a function test, `given` has one JSON argument per line and
    `expected` is the JSON result; otherwise they are stdin and stdout."""

    given: str
    expected: str


@dataclass(frozen=True)
class Problem:
    """The tests of a problem as the data set has them, and the function to call ('' for programs on stdin)."""

    public: str
    private: str
    function: str


@lru_cache(maxsize=16)
def cases(problem: Problem) -> tuple[Case, ...]:
    """Public tests, then private ones. Raises `ValueError` for tests that are not of the schema."""
    found: list[Case] = []
    for text in (problem.public, problem.private):
        for entry in json.loads(unpacked_tests(text)):
            if not isinstance(entry, dict) or not {"input", "output"} <= set(entry):
                raise ValueError("a test is a mapping with input, output and testtype")
            found.append(Case(str(entry["input"]), str(entry["output"])))
    if not found:
        raise ValueError("a problem needs at least one test")
    return tuple(found)


def unpacked_tests(text: str) -> str:
    """The JSON list of tests in `text`: as it is, or base64 of zlib of a pickled string, as private tests come.

    Nothing is unpickled: the pickle is read as a list of opcodes, of which only those that spell one string are
    accepted, so a crafted file can neither name nor call anything. Raises `ValueError` for anything else, and for tests
    that unpack to more than `MAX_TESTS_BYTES`.
    """
    if text.lstrip()[:1] in ("[", ""):
        return text if text.strip() else "[]"
    try:
        unpack = zlib.decompressobj()
        packed = unpack.decompress(base64.b64decode(text, validate=True), MAX_TESTS_BYTES)
    except (binascii.Error, zlib.error) as error:
        raise ValueError(f"the tests are neither JSON nor base64 of zlib ({error})") from None
    if unpack.unconsumed_tail or not unpack.eof:
        raise ValueError(f"the tests are cut off or unpack to more than {MAX_TESTS_BYTES >> 20} MB")
    return pickled_string(packed)


def pickled_string(data: bytes) -> str:
    """The string a pickle consists of, read from its opcodes; `ValueError` if it is anything but one string."""
    strings = []
    try:
        for opcode, argument, _ in pickletools.genops(data):
            if opcode.name in _STRINGS:
                strings.append(argument)
            elif opcode.name not in _TEXT_OPCODES:
                raise ValueError(f"it contains {opcode.name}")
    except (ValueError, IndexError, OverflowError, MemoryError) as error:
        raise ValueError(f"the pickled tests are not one plain string: {error}") from None
    if len(strings) != 1:
        raise ValueError(f"the pickled tests are {len(strings)} strings, not one")
    return strings[0]


def same_output(written: str, expected: str) -> bool:
    """Whether a program's stdout is the expected one: line by line, blanks at both ends of the text and of each line
    ignored, and lines that differ as text equal if they are the same numbers (exactly, as decimals)."""
    ours, theirs = written.strip().split("\n"), expected.strip().split("\n")
    return len(ours) == len(theirs) and all(map(_same_line, ours, theirs))


def _same_line(ours: str, theirs: str) -> bool:
    if ours.strip() == theirs.strip():
        return True
    left, right = ours.split(), theirs.split()
    return bool(right) and len(left) == len(right) and all(map(_same_number, left, right))


def _same_number(left: str, right: str) -> bool:
    if any(len(text) > MAX_NUMBER or not _NUMBER.fullmatch(text) for text in (left, right)):
        return False
    return Decimal(left) == Decimal(right)


def same_result(written: str, expected: str) -> bool:
    """Whether a function's result, as JSON, is the expected one; tuples count as lists."""
    try:
        return json.loads(written) == json.loads(expected)
    except (ValueError, RecursionError):
        return False
