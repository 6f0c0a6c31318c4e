"""Rows taken more than once: the gradient is autograd's, and the same whatever the threads do."""

import pytest
import torch

from workbench.policy.gather import gather


def repeats(count, every):
    """An index like that of packed responses: a few rows many times, all over the place, the others once."""
    index = torch.arange(count)
    index[::every] = torch.arange(len(index[::every])) // 16
    return index


@pytest.mark.parametrize("shape", [(400,), (400, 7)])
@pytest.mark.parametrize("index", [torch.arange(400), torch.zeros(50, dtype=torch.int64), repeats(400, 5)])
def test_values_and_gradients_are_those_of_indexing(shape, index):
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True)
    other = rows.detach().clone().requires_grad_()
    grad = torch.randn(len(index), *shape[1:], generator=generator, dtype=torch.float64)
    taken = gather(rows, index)
    assert torch.equal(taken, other[index])
    taken.backward(grad)
    other[index].backward(grad)
    torch.testing.assert_close(rows.grad, other.grad, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("shape", [(10_000, 256), (100_000,)])
def test_two_threads_give_the_same_gradient_every_time(shape):
    """Indexing itself does not: another one in 4 of 50 tries for the first shape, in 50 of 50 for the second."""
    index, grad = repeats(shape[0], 20), torch.randn(shape, generator=torch.Generator().manual_seed(0))
    threads, found = torch.get_num_threads(), []
    torch.set_num_threads(2)
    try:
        for _ in range(30):
            rows = torch.zeros(shape, requires_grad=True)
            gather(rows, index).backward(grad)
            found.append(rows.grad)
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(found[0], other) for other in found[1:])
