"""The gradient of an update, for every method, against finite differences of its loss in fp64."""

import pytest
import torch

from tests.methods.cases import CASES
from tests.methods.made_up import (
    LONGEST,
    PROGRESS,
    config_of,
    made_up_critic,
    methods_of,
)
from workbench.methods import Composition
from workbench.training.advantages import assign_advantages
from workbench.training.objective import token_loss
from workbench.training.update import accumulate_gradient, forward

STOPS_A_GRADIENT = {"cispo", "gspo"}
"""Their surrogates hold a ratio constant inside the differentiated term; their closed-form gradients are in
`test_surrogates.py`."""
STEP = 1e-6


@torch.no_grad()
def moved(parameters, direction, step):
    for parameter, along in zip(parameters, direction, strict=True):
        parameter += step * along


@torch.no_grad()
def loss_with_constants_of(batch, policy, methods, critic) -> float:
    """The loss at the policy's present weights, with weights, masks, bounds and marks as `batch` carries them."""
    now, columns = forward(policy, batch, critic)
    tokens = batch.tokens.with_columns(**columns)
    return (tokens.share * token_loss(tokens, methods.ratio(tokens, now.logp), now.logp, now.entropy, methods)).sum()


@pytest.mark.parametrize("name", sorted(set(CASES) - STOPS_A_GRADIENT))
def test_the_gradient_is_that_of_the_loss_with_what_is_detached_held_fixed(name, policy, rollouts):
    config = config_of(methods_of(name, CASES[name]), CASES[name].config)
    methods = Composition(config.build_methods())
    methods.begin(PROGRESS)
    critic = made_up_critic(methods)
    columns = {} if critic is None else critic.columns(policy, rollouts, 10**6)
    batch = assign_advantages(rollouts.with_tokens(**columns), methods)
    methods.look(batch)
    batch = batch.select_sequences(methods.keep(batch))

    batch, loss = accumulate_gradient(policy, batch, methods, config.objective, 10**6, LONGEST, critic)
    assert loss_with_constants_of(batch, policy, methods, critic).item() == pytest.approx(loss, rel=1e-12)
    generator = torch.Generator().manual_seed(0)
    direction = [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in policy.parameters]
    predicted = sum((p.grad * along).sum() for p, along in zip(policy.parameters, direction, strict=True)).item()
    policy.model.zero_grad()

    values = []
    for step in (STEP, -2 * STEP):
        moved(policy.parameters, direction, step)
        values.append(loss_with_constants_of(batch, policy, methods, critic))
    moved(policy.parameters, direction, STEP)
    measured = ((values[0] - values[1]) / (2 * STEP)).item()
    assert abs(predicted) > 1e-4, "the direction must have a slope to measure"
    assert measured == pytest.approx(predicted, rel=1e-5, abs=1e-8)
