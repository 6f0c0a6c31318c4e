"""Majority voting over final answers: exact expected accuracy for any number of votes, ties broken fairly."""

from __future__ import annotations

from functools import cache
from math import comb

import numpy as np
import pandas as pd

MAX_SAMPLES = 1000
"""Beyond it the binomial weights of the exact count leave the range of fp64."""


def answer_votes(answers: list[str], correct: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """Votes [A] per answer, correctness [A] of each answer (share of its samples judged correct), and the samples that
    gave no answer ('') and therefore do not vote (I)."""
    given = np.array([answer != "" for answer in answers], dtype=bool)
    if not given.any():
        return np.zeros(0, dtype=int), np.zeros(0), len(answers)
    index = pd.factorize(np.array(answers, dtype=object)[given])[0]
    votes = np.bincount(index)
    right = np.bincount(index, weights=np.asarray(correct, dtype=float)[given]) / votes
    return votes, right, int((~given).sum())


def majority(answers: list[str], correct: np.ndarray) -> tuple[float, float]:
    """(share, accuracy) of the majority answer among all samples of one prompt; without any answer (0, 0).

    share: votes of the most frequent answer / all samples. accuracy: probability that it is right, one of several most
    frequent answers being taken at random. correct: [n] in {0, 1}.
    """
    votes, right, _ = answer_votes(answers, correct)
    if len(votes) == 0:
        return 0.0, 0.0
    return float(votes.max() / len(answers)), float(right[votes == votes.max()].mean())


def maj_at_ks(answers: list[str], correct: np.ndarray, ks: list[int]) -> np.ndarray:
    """maj@k of one prompt: the expected accuracy of the majority answer of k of the n samples, drawn without
    replacement, one of several most frequent answers being taken at random. Exact, for every k of `ks` [K] -> [K].

    Sums over the votes t that the winning answer a gets, of m_a in all: maj@k = Σ_a right_a Σ_t C(m_a, t)·W / C(n, k),
    W = Σ_j ways of drawing the other k − t samples so that j other answers have t votes and none has more, over j + 1.
    W is a coefficient of Π_b (Σ_{x<t} C(m_b, x) z^x + y·C(m_b, t) z^t), with 1/(j + 1) = ∫₀¹ y^j dy, which
    Gauss–Legendre quadrature integrates exactly. Samples without an answer do not vote; if none votes, it counts as
    wrong. Raises `ValueError` unless 1 ≤ k ≤ n ≤ 1000.
    """
    n = len(answers)
    if n > MAX_SAMPLES or not all(1 <= k <= n for k in ks):
        raise ValueError(f"maj@k needs 1 ≤ k ≤ {n} ≤ {MAX_SAMPLES} samples, got k = {ks}")
    votes, right, silent = answer_votes(answers, correct)
    most = max(ks)
    total = np.zeros(len(ks))
    for t in range(1, min(most, int(votes.max(initial=0))) + 1):
        rivals = votes[votes >= t]
        free = silent + int(votes[votes < t].sum())
        for size in np.unique(rivals):
            weight = right[votes == size].sum()
            if weight == 0:
                continue
            others = np.delete(rivals, np.flatnonzero(rivals == size)[0])
            coefficients = _draws_without_more(others, free, t, most)
            own = comb(int(size), t) * 0.5 ** int(size)
            total += [weight * own * (coefficients[k - t] if k >= t else 0.0) for k in ks]
    # Binomials C(m, x) are carried as C(m, x)/2^m, which stay in range; over all answers that is one factor 2^-n.
    return total / np.array([comb(n, k) / 2**n for k in ks])


def _draws_without_more(others: np.ndarray, free: int, t: int, most: int) -> np.ndarray:
    """Ways W of drawing 0 … most samples (see `maj_at_ks`), each times 2^−(samples to draw from)."""
    nodes, weights = _quadrature(most // t // 2 + 1)
    y = (nodes + 1) / 2
    product = np.tile(_binomials(free, min(free, most)), (len(y), 1))
    for votes in others:
        factor = np.tile(_binomials(int(votes), t), (len(y), 1))
        factor[:, t] *= y
        product = _multiply(product, factor)[:, : most + 1]
    out = np.zeros(most + 1)
    out[: product.shape[1]] = (weights / 2) @ product
    return out


@cache
def _quadrature(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Gauss–Legendre nodes and weights on [−1, 1]."""
    return np.polynomial.legendre.leggauss(count)


def _binomials(n: int, up_to: int) -> np.ndarray:
    return np.array([comb(n, x) / 2**n for x in range(up_to + 1)])


def _multiply(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Products of polynomials, coefficients along the last axis: [Q, a] × [Q, b] -> [Q, a + b − 1]."""
    out = np.zeros((len(left), left.shape[1] + right.shape[1] - 1))
    for power in range(right.shape[1]):
        out[:, power : power + left.shape[1]] += left * right[:, power : power + 1]
    return out
