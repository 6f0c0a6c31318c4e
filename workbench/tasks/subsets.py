"""Which prompts of a data set are kept: largest clusters, random, by pass rate, by perplexity. Row numbers in and out.

The data diversity experiment of arXiv 2511.05993, Table 3 (S): prompts as mean-pooled embeddings of the policy's last
layer, K-means with K = 1000, all prompts of the M largest clusters (M = 281, 112, 49, 21, 9 of DAPO-Math-17k), and
random subsets of equal size as controls.
"""

from __future__ import annotations

import numpy as np


def clusters(embeddings: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Cluster [P] int of each row of `embeddings` [P, D]: scikit-learn's K-means with K = `count`, Euclidean, one
    k-means++ start (I: the paper states K alone). Raises `ValueError` for more clusters than rows."""
    from sklearn.cluster import KMeans

    if count > len(embeddings):
        raise ValueError(f"{count} clusters of {len(embeddings)} prompts; lower task.subset.clusters")
    return KMeans(count, n_init=1, random_state=seed).fit_predict(np.asarray(embeddings, dtype=np.float64))


def of_largest_clusters(labels: np.ndarray, largest: int) -> np.ndarray:
    """Rows of the `largest` biggest clusters, in order; of clusters of one size the lower label comes first (I)."""
    found, sizes = np.unique(labels, return_counts=True)
    kept = found[np.argsort(-sizes, kind="stable")[:largest]]
    return np.flatnonzero(np.isin(labels, kept))


def at_random(total: int, size: int, seed: int) -> np.ndarray:
    """`size` of `total` rows, in order, all equally likely. Raises `ValueError` if there are not that many."""
    _refuse_more(size, total)
    return np.sort(np.random.default_rng([seed, 2]).choice(total, size, replace=False))


def of_pass_rate(rates: np.ndarray, low: float, high: float) -> np.ndarray:
    """Rows whose share of correct responses is in [low, high]."""
    return np.flatnonzero((rates >= low) & (rates <= high))


def of_perplexity(perplexity: np.ndarray, size: int, order: str) -> np.ndarray:
    """The `size` rows of 'lowest' or 'highest' perplexity, in row order; ties go to the earlier row. Raises
    `ValueError` if there are not that many."""
    _refuse_more(size, len(perplexity))
    ranked = np.argsort(perplexity if order == "lowest" else -perplexity, kind="stable")
    return np.sort(ranked[:size])


def _refuse_more(size: int, total: int) -> None:
    if size > total:
        raise ValueError(f"task.subset.size is {size}, but there are {total} training prompts; lower it")
