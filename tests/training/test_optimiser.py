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


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_sgd_moves_along_the_gradient_and_its_state_comes_back(momentum):
    config = OptimiserConfig(name="sgd", learning_rate=2.0, momentum=momentum, weight_decay=0.1, max_grad_norm=math.inf)

    def run(steps, state=None):
        weight = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
        optimiser = Optimiser([weight], config, 10)
        if state:
            weight.data.copy_(state[0])
            optimiser.load_state_tensors(state[1], 1)
        for _ in range(steps):
            weight.grad = torch.tensor([0.3, 0.4])
            optimiser.step()
        return weight.detach().clone(), optimiser.state_tensors()

    expected, velocity = torch.tensor([1.0, -2.0]), torch.zeros(2)
    for _ in range(3):
        velocity = momentum * velocity + torch.tensor([0.3, 0.4]) + 0.1 * expected
        expected = expected - 2.0 * velocity
    torch.testing.assert_close(run(3)[0], expected)
    assert torch.equal(run(2, run(1))[0], run(3)[0])


def test_an_overflow_in_float16_skips_the_update_and_halves_the_scale():
    weight = torch.nn.Parameter(torch.ones(2))
    optimiser = Optimiser([weight], OptimiserConfig(learning_rate=0.1, max_grad_norm=math.inf), 10, torch.float16)
    scale = optimiser.loss_scale
    weight.grad = torch.tensor([1.0, math.inf])
    measures = optimiser.step()
    assert weight.tolist() == [1.0, 1.0] and math.isnan(measures["grad/norm"]) and measures["grad/skipped"] == 1
    assert optimiser.loss_scale == scale / 2
    weight.grad = torch.tensor([3.0, 4.0]) * optimiser.loss_scale
    assert optimiser.step()["grad/norm"] == pytest.approx(5.0)
    torch.testing.assert_close(weight.detach(), torch.tensor([0.9, 0.9]))
    twin = Optimiser([weight], optimiser.config, 10, torch.float16)
    twin.load_state_tensors(optimiser.state_tensors(), optimiser.updates)
    assert (twin.loss_scale, twin.updates) == (scale / 2, 2)
    optimiser.scaler.update(1.0)
    weight.grad = torch.tensor([1.0, math.inf])
    with pytest.raises(FloatingPointError, match="non-finite gradient"):
        optimiser.step()


def test_what_belongs_to_the_other_optimiser_is_refused():
    with pytest.raises(ValueError, match="below 1"):
        OptimiserConfig(learning_rate=1.0)
    with pytest.raises(ValueError, match="SGD's"):
        OptimiserConfig(momentum=0.9)
