"""Token classes of arXiv 2508.02260: formal, logical, metacognitive and the rest, by word lists and one pattern.

The paper names the classes and a few members of each (S); the lists are made to be edited (I): pass your own
`TokenClasses` to `classify` or `by_class`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

NAMES = ("formal", "logical", "metacognitive", "rest")
DEFINITIONS = {
    "formal": "digits, operators, brackets and LaTeX",
    "logical": "words of logical structure: because, therefore, if …",
    "metacognitive": "words that check or redirect: wait, check, maybe …",
    "rest": "all other tokens",
}

FORMAL = r"(?:[-+*/=<>^_%|(){}\[\]\\$&≤≥≠≈×·÷±√∞πθ∈∑∏∫→⇒]|\d(?:[.,]\d)*)+|\\[a-zA-Z]+"
LATEX = (
    "frac dfrac tfrac sqrt cdot times boxed text left right begin end aligned sum prod int log ln sin cos tan mod pmod"
)
LOGICAL = (
    "because therefore if then thus hence since so implies suppose assume given let whenever unless otherwise either "
    "consequently follows means but however although where when case cases"
)
METACOGNITIVE = (
    "wait hmm check recheck verify actually maybe perhaps alternatively again mistake wrong think consider reconsider "
    "sure confirm oops try rethink double"
)


@dataclass(frozen=True)
class TokenClasses:
    """Which token belongs to which class: `formal` is a pattern for the whole token, the others are words."""

    formal: str = FORMAL
    formal_words: frozenset[str] = field(default_factory=lambda: frozenset(LATEX.split()))
    logical: frozenset[str] = field(default_factory=lambda: frozenset(LOGICAL.split()))
    metacognitive: frozenset[str] = field(default_factory=lambda: frozenset(METACOGNITIVE.split()))


def classify(pieces: Sequence[str] | pd.Series, classes: TokenClasses | None = None) -> np.ndarray:
    """Class of each token text: index into `NAMES`, int64 [n].

    White space around a token and its case do not matter. Tokens are looked at one by one: a word that the tokenizer
    splits, and a phrase such as "let me check", belong to the classes of their parts.
    """
    classes = classes or TokenClasses()
    formal = re.compile(classes.formal)

    def of(piece: str) -> int:
        word = piece.strip()
        if formal.fullmatch(word) or word in classes.formal_words:
            return 0
        if word.lower() in classes.logical:
            return 1
        return 2 if word.lower() in classes.metacognitive else 3

    codes, texts = pd.factorize(pieces if isinstance(pieces, pd.Series) else np.asarray(pieces, dtype=object))
    return np.array([of(text) for text in texts], dtype=np.int64)[codes] if len(codes) else np.zeros(0, np.int64)


def by_class(tokens: pd.DataFrame, columns: Sequence[str], classes: TokenClasses | None = None) -> pd.DataFrame:
    """Count, share and the means of `columns` per token class of a stored token table; one row per class of `NAMES`."""
    names = np.array(NAMES)[classify(tokens["piece"], classes)]
    grouped = tokens[list(columns)].groupby(pd.Categorical(names, NAMES), observed=False)
    table = grouped.mean()
    table.insert(0, "count", grouped.size())
    table.insert(1, "share", table["count"] / max(len(tokens), 1))
    return table.rename_axis("class")
