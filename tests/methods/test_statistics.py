"""Batch statistics against their plain forms."""

import math

import torch

from workbench.methods import statistics

VALUES = torch.arange(7.0).square()


def test_sums_and_means_are_taken_in_double_precision():
    values = torch.tensor([1e8, 1.0, -1e8])
    assert statistics.total(values).item() == 1.0
    assert statistics.mean(VALUES, VALUES > 3).item() == VALUES[VALUES > 3].mean()


def test_the_mean_of_nothing_is_nan():
    assert math.isnan(statistics.mean(VALUES, VALUES < 0).item())
