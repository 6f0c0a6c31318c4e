import math

import pytest
import torch

from workbench.config import OptimiserConfig
from workbench.training.optimiser import Optimiser, learning_rate


def test_schedules():
    constant = OptimiserConfig(learning_rate=1e-3)
    assert {learning_rate(constant, u, 10) for u in range(10)} == {1e-3}
    cosine = OptimiserConfig(learning_rate=1e-3, schedule="cosine", warmup_updates=2)
    rates = [learning_rate(cosine, u, 10) for u in range(10)]
    assert rates[:3] == pytest.approx([5e-4, 1e-3, 1e-3])
    assert rates[6] == pytest.approx(1e-3 * (1 + math.cos(math.pi * 4 / 8)) / 2)
    linear = OptimiserConfig(learning_rate=1e-3, schedule="linear")
    assert [learning_rate(linear, u, 4) for u in range(4)] == pytest.approx([1e-3, 7.5e-4, 5e-4, 2.5e-4])


def test_the_gradient_norm_is_reported_before_clipping_and_applied_after():
    weight = torch.nn.Parameter(torch.zeros(2))
    optimiser = Optimiser([weight], OptimiserConfig(learning_rate=0.1, max_grad_norm=1.0), 10)
    weight.grad = torch.tensor([3.0, 4.0])
    assert optimiser.step() == {"grad/norm": 5.0, "lr": 0.1}
    torch.testing.assert_close(weight.detach(), torch.tensor([-0.1, -0.1]))  # AdamW's first step is the sign


def test_a_non_finite_gradient_stops_before_any_weight_moves():
    weight = torch.nn.Parameter(torch.ones(2))
    optimiser = Optimiser([weight], OptimiserConfig(), 10)
    weight.grad = torch.tensor([1.0, math.inf])
    with pytest.raises(FloatingPointError, match="learning_rate"):
        optimiser.step()
    assert weight.tolist() == [1.0, 1.0]
