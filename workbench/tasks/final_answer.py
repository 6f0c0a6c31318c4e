r"""The final answer of a response: the last `\boxed{…}`, else what the response announces, else its last number.

Every function here takes any text in linear time and evaluates nothing.
"""

from __future__ import annotations

import re

MAX_RESPONSE = 200_000
"""Characters of a response that is read at all."""
MAX_ANSWER = 500
MAX_DEPTH = 12
"""Longest answer and deepest nesting of brackets that is judged: parsers of mathematics take exponential time in the
depth."""
TAIL = 2000
"""Characters at the end of a response in which an unboxed answer is looked for."""

_BOX = re.compile(r"\\f?boxed\s*\{")
_ANNOUNCED = re.compile(
    r"(?:^|\n)[ \t]*(?:####|\**(?:final )?answer\**[ \t]*:)[ \t]*\**[ \t]*([^\n]{1,500})", re.IGNORECASE
)
_WHOLE = r"[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+"
_NUMBER = re.compile(rf"(?<![0-9A-Za-z_.^])-?(?:{_WHOLE})(?:\.[0-9]+)?(?:/[0-9]+)?(?![0-9A-Za-z_^])")
_SCIENTIFIC = re.compile(r"([+-]?[0-9]{1,50}(?:\.[0-9]{0,50})?)[eE]([+-]?[0-9]{1,3})")
_PLAIN = re.compile(r"([+-]?)([0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.0*)?")


def final_answer(response: str) -> tuple[str, bool]:
    """(the answer as it is written, whether it was boxed); ('', False) if there is none that could be judged."""
    if len(response) > MAX_RESPONSE:
        return "", False
    boxes = list(_BOX.finditer(response))
    if boxes:
        inside = braced(response, boxes[-1].end())
        return (inside, True) if _is_judgeable(inside) else ("", False)
    tail = response[-TAIL:]
    announced = _ANNOUNCED.findall(tail)
    if announced:
        answer = announced[-1].strip().strip("*").strip()
        return (answer.removesuffix("."), False) if _is_judgeable(answer) else ("", False)
    numbers = [match for match in _NUMBER.finditer(tail) if match.start() > 0 or len(response) == len(tail)]
    return (numbers[-1].group(), False) if numbers and _is_judgeable(numbers[-1].group()) else ("", False)


def braced(text: str, start: int) -> str:
    """The text from `start` up to the brace that closes the one before it; '' if there is none within `MAX_ANSWER`."""
    depth, place = 1, start
    for place in range(start, min(len(text), start + MAX_ANSWER + 1)):
        if text[place - 1] == "\\" and text[place] in "{}":
            continue
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if depth == 0:
            return text[start:place].strip()
    return ""


def tagged(response: str, tag: str = "answer") -> str:
    """What stands between the last `<answer>` and `</answer>`, stripped; '' if there is no such pair."""
    if len(response) > MAX_RESPONSE:
        return ""
    end = response.rfind(f"</{tag}>")
    start = response.rfind(f"<{tag}>", 0, end) if end >= 0 else -1
    return response[start + len(tag) + 2 : end].strip() if start >= 0 else ""


def whole_number(answer: str) -> str | None:
    """Canonical digits of an answer that is nothing but a whole number, such as `$1,024$`, `027` or `27.0`, else None.

    ASCII digits only.
    """
    bare = answer.strip().strip("$").replace(r"\!", "").strip()
    match = _PLAIN.fullmatch(bare)
    if not match:
        return None
    digits = match[2].replace(",", "").lstrip("0") or "0"
    return f"-{digits}" if match[1] == "-" and digits != "0" else digits


def as_latex(answer: str) -> str:
    """The answer as LaTeX reads it: `1.6e-19` becomes `1.6 \\times 10^{-19}`, everything else is LaTeX already."""
    match = _SCIENTIFIC.fullmatch(answer.strip().strip("$").strip())
    return rf"{match[1]} \times 10^{{{int(match[2])}}}" if match else answer


def storable(answer: str) -> str:
    """The answer without what no file of text can hold, halves of surrogate pairs."""
    return answer.encode(errors="replace").decode()


def _is_judgeable(answer: str) -> bool:
    """Whether an answer is short, not deeply nested, and closes the braces it opens, so that it stays in its box."""
    if not answer or len(answer) > MAX_ANSWER:
        return False
    depth = deepest = braces = 0
    for place, character in enumerate(answer):
        depth += (character in "([{") - (character in ")]}")
        deepest = max(deepest, abs(depth))
        if character in "{}" and answer[place - 1 : place] != "\\":
            braces += 1 if character == "{" else -1
            if braces < 0:
                return False
    return deepest <= MAX_DEPTH and braces == 0
