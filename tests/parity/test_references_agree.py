"""Where TRL and verl define the same objective they give the same number and gradient: the adapter reads both right."""

import pytest
import torch

from tests.parity.batches import LONGEST, random_rollouts
from tests.parity.reference import trl_loss, trl_trainer_loss, verl_loss

BOUNDS = {"clip_ratio_low": 0.2, "clip_ratio_high": 0.28}, {"epsilon_low": 0.2, "epsilon_high": 0.28}
GSPO = {"importance_sampling_level": "sequence"}
# SAPO's temperatures must be exact in fp32: TRL's trainer rounds them (its default 1.05 differs by 2e-8).
TAU = {"tau_pos": 1.0, "tau_neg": 1.25}, {"sapo_temperature_pos": 1.0, "sapo_temperature_neg": 1.25}
# (verl's loss, its aggregation, its options; TRL's loss_type, its options)
TOKEN_MEAN = [("vanilla", "token-mean", {}, "dapo", {}), ("vanilla", "seq-mean-token-sum-norm", {}, "dr_grpo", {})]
LENGTHS_PADDED_BY_VERL = [
    ("vanilla", "seq-mean-token-mean", {}, "grpo", {}),
    ("gspo", "seq-mean-token-mean", {}, "grpo", GSPO),
    ("sapo", "seq-mean-token-mean", TAU[0], "sapo", TAU[1]),
]


def differences(verl, trl):
    return abs(verl[0] - trl[0]), (verl[1] - trl[1]).abs().max().item()


def both(case, seed, trl):
    name, mode, own_options, loss_type, options = case
    rollouts, logp = random_rollouts(seed)
    theirs = verl_loss(name, rollouts, logp, mode, horizon=LONGEST, **BOUNDS[0], **own_options)
    horizon = {"max_completion_length": LONGEST}
    other = trl(loss_type, rollouts, logp, **BOUNDS[1], **options, **horizon)
    return differences(theirs, other)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("trl", [trl_loss, trl_trainer_loss])
@pytest.mark.parametrize("case", TOKEN_MEAN, ids=lambda case: case[3])
def test_token_and_constant_denominators_agree_to_rounding(case, trl, seed):
    value, gradient = both(case, seed, trl)
    assert value < 1e-14
    assert gradient < 1e-14


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("trl", [trl_loss, trl_trainer_loss])
@pytest.mark.parametrize("case", LENGTHS_PADDED_BY_VERL, ids=lambda case: case[0])
def test_sequence_means_agree_up_to_the_1e_8_that_verl_adds_to_lengths(case, trl, seed):
    value, gradient = both(case, seed, trl)
    assert 0 < value < 1e-8
    assert gradient < 1e-8


def test_cispo_agrees_when_verl_has_no_lower_bound_and_trl_gets_the_cap_itself():
    rollouts, logp = random_rollouts(0)
    matched = verl_loss("cispo", rollouts, logp, clip_ratio_low=1.0, clip_ratio_high=0.28)
    value, gradient = differences(matched, trl_loss("cispo", rollouts, logp, epsilon_high=1.28))
    assert value < 1e-14
    assert gradient < 1e-14
    naive = verl_loss("cispo", rollouts, logp, **BOUNDS[0])
    assert differences(naive, trl_loss("cispo", rollouts, logp, **BOUNDS[1]))[0] > 1e-3, (
        "the same settings mean two things"
    )


def test_kl_cov_of_verl_depends_on_its_micro_batches():
    """Selection per micro-batch: the reason why parity of KL-Cov and Clip-Cov is with one micro-batch only."""
    rollouts, logp = random_rollouts(0)
    options = {"kl_cov_ratio": 0.1, "ppo_kl_coef": 1.0}
    whole, _ = verl_loss("kl_cov", rollouts, logp, **options)
    rows = torch.arange(len(rollouts.sequences)).chunk(4)
    parts = 0.0
    for part in rows:
        chosen = rollouts.select_sequences(part)
        inside = torch.isin(rollouts.tokens.sequence, part)
        parts += verl_loss("kl_cov", chosen, logp[inside], **options)[0] * len(chosen.tokens) / len(rollouts.tokens)
    assert abs(parts - whole) > 1e-4
