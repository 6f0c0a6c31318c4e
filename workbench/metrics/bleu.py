"""N-gram diversity and SelfBLEU of the responses to one prompt, by counting instead of comparing pairs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

ORDER = 4
DIVERSITY_ORDER = 5
EPSILON = 0.1
_WORD = re.compile(r"\w+|[^\w\s]")


def words(text: str) -> list[str]:
    """Runs of letters and digits, and every other visible character by itself; white space is dropped (I: the source
    does not state its tokenisation)."""
    return _WORD.findall(text)


@dataclass(frozen=True)
class Ngrams:
    """The n-grams of R responses: `gram` [M] numbers the different ones from 0, `response` [M] says whose they are."""

    gram: np.ndarray
    response: np.ndarray


def ngrams(responses: Sequence[Sequence], order: int) -> list[Ngrams]:
    """1-grams to `order`-grams of tokenised responses (any hashable tokens); none crosses from one to the next."""
    lengths = np.array([len(response) for response in responses], dtype=np.int64)
    numbers: dict = {}
    gram = np.array([numbers.setdefault(token, len(numbers)) for response in responses for token in response], "int64")
    response, token, vocabulary = np.repeat(np.arange(len(lengths)), lengths), gram, max(1, len(numbers))
    found = [Ngrams(gram, response)]
    for _ in range(order - 1):
        # An n-gram is an (n − 1)-gram and the token after it; renumbered, so that the key never outgrows 64 bits.
        whole = response[:-1] == response[1:]
        token = token[1:][whole]
        _, gram = np.unique(gram[:-1][whole] * vocabulary + token, return_inverse=True)
        response = response[:-1][whole]
        found.append(Ngrams(gram, response))
    return found


def ngram_diversity(responses: Sequence[Sequence], order: int = DIVERSITY_ORDER) -> float:
    """Π_{n=1..N} U_n / C_n: U_n distinct and C_n all n-grams of the tokenised responses to one prompt, pooled
    (arXiv 2511.05993 (S), N = 5; pooling over the responses of a prompt (I)). In (0, 1], no unit.

    NaN when no response has N tokens. Falls with the number and the length of the responses: compare equal numbers.
    """
    return diversity_of(ngrams(responses, order))


def diversity_of(found: list[Ngrams]) -> float:
    """`ngram_diversity` from the n-grams of every order up to N."""
    if len(found[-1].gram) == 0:
        return float("nan")
    return float(np.prod([(n.gram.max() + 1) / len(n.gram) for n in found]))


def self_bleu(responses: Sequence[Sequence]) -> np.ndarray:
    """BLEU of each tokenised response against all others of the same prompt [R]; their mean is SelfBLEU
    (arXiv 2511.05993 (S)); 1 where every response repeats the others. NaN for fewer than two responses.

    BLEU-4: geometric mean of the clipped 1- to 4-gram precisions with equal weights (I: "averaged over 1..4-gram"),
    times the brevity penalty with the closest reference length, the shorter of two equally close ones. An order without
    a match counts 0.1 matches, a response without a common 1-gram scores 0: `nltk.translate.bleu_score.sentence_bleu`
    with `SmoothingFunction().method1`, to rounding.
    """
    return bleu_of(ngrams(responses, ORDER), len(responses))


def bleu_of(found: list[Ngrams], count: int) -> np.ndarray:
    """`self_bleu` from the 1- to 4-grams (or more) of `count` responses."""
    if count < 2:
        return np.full(count, np.nan)
    lengths = np.bincount(found[0].response, minlength=count)
    log_precision, common = np.zeros(count), None
    for order, n in enumerate(found[:ORDER], 1):
        matches = _clipped_matches(n, count)
        common = matches > 0 if common is None else common
        total = np.maximum(lengths - order + 1, 1)
        log_precision += np.log(np.where(matches > 0, matches, EPSILON) / total) / ORDER
    penalty = np.minimum(0.0, 1 - _closest_other(lengths) / np.maximum(lengths, 1))
    return np.where(common, np.exp(log_precision + penalty), 0.0)


def _clipped_matches(n: Ngrams, responses: int) -> np.ndarray:
    """Σ over each response's n-grams of min(own count, largest count in any other response) [R]."""
    if len(n.gram) == 0:
        return np.zeros(responses)
    pair, own = np.unique(n.gram * responses + n.response, return_counts=True)
    gram, response = pair // responses, pair % responses
    order = np.lexsort((-own, gram))
    gram, response, own = gram[order], response[order], own[order]
    first = np.flatnonzero(np.r_[True, gram[1:] != gram[:-1]])
    shared = np.r_[np.diff(first), len(gram) - first[-1]] > 1
    second = np.where(shared, own[np.minimum(first + 1, len(own) - 1)], 0)
    group = np.repeat(np.arange(len(first)), np.r_[np.diff(first), len(gram) - first[-1]])
    elsewhere = own[first][group]
    elsewhere[first] = second  # the response that has most of an n-gram is compared with the runner-up
    return np.bincount(response, weights=np.minimum(own, elsewhere), minlength=responses)


def _closest_other(lengths: np.ndarray) -> np.ndarray:
    """For each length [R] the closest among the other lengths, the shorter of two equally close ones."""
    order = np.argsort(lengths, kind="stable")
    ordered = lengths[order].astype(float)
    below, above = np.r_[-np.inf, ordered[:-1]], np.r_[ordered[1:], np.inf]
    closest = np.empty(len(lengths))
    closest[order] = np.where(ordered - below <= above - ordered, below, above)
    return closest
