"""Model text in figures: plotly reads labels as a small HTML, so what a model or a file says is made plain first."""

import re
from html import escape

_UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\xad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]")


def plain(text, limit: int = 40) -> str:
    """`text` as a label: markup escaped, control and bidi characters shown as symbols, cut to `limit` characters."""
    text = str(text)
    text = text if len(text) <= limit else text[: limit - 1] + "…"
    return escape(_UNSEEN.sub(_symbol, text), quote=False)


def _symbol(match: re.Match) -> str:
    code = ord(match[0])
    return {9: "⇥", 10: "⏎"}.get(code) or (chr(0x2400 + code) if code < 32 else f"⟨{code:04X}⟩")
