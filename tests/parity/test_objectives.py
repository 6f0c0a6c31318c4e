"""Our loss and its gradient by the log-probs equal those of TRL and verl to 1e-9 in fp64, where all mean the same."""

import pytest

from tests.parity.batches import LONGEST, random_rollouts
from tests.parity.ours import our_loss
from tests.parity.reference import trl_loss, trl_trainer_loss, verl_loss

TOLERANCE = 1e-9
VERL_BOUNDS, TRL_BOUNDS = {"clip_ratio_low": 0.2, "clip_ratio_high": 0.28}, {"epsilon_low": 0.2, "epsilon_high": 0.28}
BOUNDS = {"objective.clip_low": 0.2, "objective.clip_high": 0.28}
# our denominator: verl's loss_agg_mode, TRL's loss_type
DENOMINATORS = {
    "tokens": ("token-mean", "dapo"),
    "sequences": ("seq-mean-token-mean", "grpo"),
    "constant": ("seq-mean-token-sum-norm", "dr_grpo"),
}
LENGTH_EPSILON = 1e-8
"""What verl adds to a response's length in its sequence means; the loss of a one-token response moves by as much."""


def assert_equal(ours, reference, tolerance=TOLERANCE):
    assert abs(ours.value - reference[0]) <= tolerance
    assert (ours.by_logp - reference[1]).abs().max() <= tolerance
    assert reference[1].abs().max() > 1e-4, "the case must have a gradient"


def verl_tolerance(rollouts, denominator):
    """Σ of what the length epsilon can move, where it is added; else the usual."""
    return TOLERANCE + (3 * LENGTH_EPSILON if denominator == "sequences" else 0)


@pytest.fixture(params=range(4), ids="seed{}".format)
def batch(request):
    return random_rollouts(request.param)


@pytest.mark.parametrize("denominator", DENOMINATORS)
def test_ppo_clip(batch, denominator):
    rollouts, logp = batch
    ours = our_loss(["grpo"], rollouts, logp, {**BOUNDS, "objective.denominator": denominator})
    mode, loss_type = DENOMINATORS[denominator]
    verl = verl_loss("vanilla", rollouts, logp, mode, horizon=LONGEST, **VERL_BOUNDS)
    assert_equal(ours, verl, verl_tolerance(rollouts, denominator))
    for trl in (trl_loss, trl_trainer_loss):
        assert_equal(ours, trl(loss_type, rollouts, logp, max_completion_length=LONGEST, **TRL_BOUNDS))


@pytest.mark.parametrize("coefficient", [0.04, 2.0])
def test_kl_penalty_k3(batch, coefficient):
    rollouts, logp = batch
    ours = our_loss(["grpo", {"name": "kl_reference", "coefficient": coefficient}], rollouts, logp, BOUNDS)
    assert_equal(ours, trl_loss("dapo", rollouts, logp, beta=coefficient, **TRL_BOUNDS))
    assert_equal(ours, trl_trainer_loss("dapo", rollouts, logp, beta=coefficient, **TRL_BOUNDS))
