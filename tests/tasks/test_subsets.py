"""Subsets of prompts: largest clusters, random, pass rate, perplexity."""

import numpy as np
import pytest
from sklearn.cluster import KMeans

from workbench.tasks import subsets


def blobs(sizes, seed=0):
    """Points around far-apart centres, shuffled, with their true labels."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    return 100 * labels[:, None] * np.ones(4) + rng.normal(size=(len(labels), 4)), labels


def test_clusters_are_scikit_learn_s():
    points, _ = blobs((9, 5, 7))
    expected = KMeans(6, n_init=1, random_state=3).fit_predict(points)
    assert (subsets.clusters(points, 6, seed=3) == expected).all()


def test_the_largest_clusters_are_kept_whole():
    points, labels = blobs((10, 30, 20, 5))
    kept = subsets.of_largest_clusters(subsets.clusters(points, 4, seed=0), largest=2)
    assert kept.tolist() == np.flatnonzero((labels == 1) | (labels == 2)).tolist()
    assert subsets.of_largest_clusters(np.array([4, 2, 2, 4, 7]), 1).tolist() == [1, 2]


def test_random_subsets_are_a_function_of_the_seed_and_even():
    assert (subsets.at_random(50, 20, 1) == subsets.at_random(50, 20, 1)).all()
    assert len(set(subsets.at_random(50, 20, 1))) == 20
    counts = sum(np.bincount(subsets.at_random(10, 3, seed), minlength=10) for seed in range(1000))
    assert np.abs(counts / 1000 - 0.3).max() < 0.06


def test_pass_rates_are_kept_with_both_borders():
    assert subsets.of_pass_rate(np.array([0.0, 0.125, 0.5, 0.875, 1.0]), 0.125, 0.875).tolist() == [1, 2, 3]


def test_perplexity_ranks_from_either_end_with_ties_to_the_earlier():
    perplexity = np.array([5.0, 1.0, 3.0, 1.0, 9.0, 1.0])
    assert subsets.of_perplexity(perplexity, 2, "lowest").tolist() == [1, 3]
    assert subsets.of_perplexity(perplexity, 2, "highest").tolist() == [0, 4]


def test_more_than_there_is_cannot_be_asked_for():
    with pytest.raises(ValueError, match="lower it"):
        subsets.at_random(5, 6, 0)
    with pytest.raises(ValueError, match="lower it"):
        subsets.of_perplexity(np.ones(5), 6, "lowest")
    with pytest.raises(ValueError, match=r"lower task\.subset\.clusters"):
        subsets.clusters(np.ones((5, 2)), 6, 0)
