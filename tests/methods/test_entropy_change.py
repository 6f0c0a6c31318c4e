"""First-order entropy change: the discriminator's identities (arXiv 2602.03392) and clipping under random rewards
(arXiv 2509.26114), on tabular policies by exact expectation."""

import math

import numpy as np
import pytest
import torch

import workbench as wb
from workbench.methods.discriminator import discriminator
from workbench.tables import Table
from workbench.training.trainer import Trainer


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def softmax(z):
    e = np.exp(z - z.max())
    return e / e.sum()


def entropy(p):
    return float(-(p * np.log(p)).sum())


def discriminators(p):
    """S_v = p_v (H + log p_v) for every token v."""
    return p * (entropy(p) + np.log(p))


def test_raising_one_logit_changes_entropy_by_minus_s(rng):
    z = rng.normal(size=9) * 2
    p, step = softmax(z), 1e-6
    for k in range(9):
        up, down = (entropy(softmax(z + sign * step * np.eye(9)[k])) for sign in (1, -1))
        assert (up - down) / (2 * step) == pytest.approx(-discriminators(p)[k], abs=1e-8)


def test_one_exact_logit_step_changes_entropy_as_predicted(rng):
    """dz = α(e_k − p): ΔH against −α(S_k − E[S]) over random policies, tokens and signs: slope 1, R² above 0.999."""
    predicted, measured = [], []
    for _ in range(400):
        z = rng.normal(size=20) * rng.uniform(0.5, 4)
        p, k = softmax(z), rng.integers(20)
        alpha = rng.choice([-1, 1]) * 1e-3
        s = discriminators(p)
        predicted.append(-alpha * (s[k] - p @ s))
        measured.append(entropy(softmax(z + alpha * (np.eye(20)[k] - p))) - entropy(p))
    slope = np.dot(predicted, measured) / np.dot(predicted, predicted)
    residual = np.array(measured) - slope * np.array(predicted)
    assert slope == pytest.approx(1, abs=2e-3)
    assert 1 - residual.var() / np.var(measured) > 0.999


def test_the_discriminator_column_and_its_expectation(rng):
    p = softmax(rng.normal(size=7) * 2)
    tokens = Table(old_logp=torch.tensor(np.log(p)), entropy=torch.full((7,), entropy(p), dtype=torch.float64))
    np.testing.assert_allclose(discriminator(tokens).numpy(), discriminators(p), rtol=1e-12)
    signs = np.sign(p - math.exp(-entropy(p)))
    assert (np.sign(discriminators(p)) == signs).all(), "S > 0 exactly where p > e^−H"
    by_sums = entropy(p) * (p**2).sum() + (p**2 * np.log(p)).sum()
    assert p @ discriminators(p) == pytest.approx(by_sums)


def test_on_policy_the_batch_mean_of_s_minus_its_expectation_is_zero():
    """Within four standard errors on the bundled policy's own samples, where the mean of S alone is not."""
    methods = ["grpo", {"name": "clip_v"}]
    trainer = Trainer(wb.preset("smoke", {"methods": methods, "rollout.prompts": 32, "rollout.samples": 16}))
    tokens = trainer.step(1).rollouts.tokens
    s = discriminator(tokens).double()
    excess = s - tokens.expected_discriminator
    error = excess.std() / len(excess) ** 0.5
    assert abs(excess.mean()) < 4 * error
    assert abs(s.mean()) > 10 * error


def removed_terms(p, ratio, low, high, natural=False):
    """First-order ΔH/η of clipping with E|A| = m = 1, by the sums over the clipped tokens alone."""
    lifted = (np.log(p) + entropy(p)) if natural else discriminators(p)
    centred = lifted - (0 if natural else p @ discriminators(p))
    clip_low, clip_high = ratio < 1 - low, ratio > 1 + high
    return -0.5 * ((p * centred)[clip_low].sum() - (p * centred)[clip_high].sum())


def exact_change(p, z, ratio, low, high, eta=1e-6):
    """ΔH/η of one exact expected policy-gradient step: A = ±1 at random for each token, PPO-clipped."""
    gradient = np.zeros_like(z)
    for sign in (1, -1):
        cut = ratio > 1 + high if sign > 0 else ratio < 1 - low
        for k in np.flatnonzero(~cut):
            gradient += 0.5 * sign * p[k] * (np.eye(len(p))[k] - p)  # π_old·r = π: the ratio turns π_old into π
    return (entropy(softmax(z + eta * gradient)) - entropy(softmax(z - eta * gradient))) / (2 * eta)


def natural_change(p, z, ratio, low, high, eta=1e-6):
    """The same for a natural-gradient step, which moves each logit by its expected advantage."""
    advantage = np.zeros_like(z)
    for sign in (1, -1):
        cut = ratio > 1 + high if sign > 0 else ratio < 1 - low
        advantage += 0.5 * sign * ~cut
    return (entropy(softmax(z + eta * advantage)) - entropy(softmax(z - eta * advantage))) / (2 * eta)


def peaked_policies(rng, count=60):
    """Policies of top probability about 0.8, a few noisy steps away from the one that sampled."""
    for _ in range(count):
        z = np.concatenate([[4.0], rng.normal(size=11) * 0.8])
        old = softmax(z + rng.normal(size=12) * 0.3)
        p = softmax(z)
        if 0.7 < p[0] < 0.9 and abs(p[0] / old[0] - 1) < 0.2:
            yield p, z, p / old


OFF_LOW, OFF_HIGH = 1.0, math.inf


def test_clipping_changes_entropy_by_the_removed_terms(rng):
    for p, z, ratio in peaked_policies(rng):
        for low, high in ((0.2, OFF_HIGH), (OFF_LOW, 0.2), (0.2, 0.2)):
            expected = removed_terms(p, ratio, low, high)
            assert exact_change(p, z, ratio, low, high) == pytest.approx(expected, abs=1e-7)


def test_clipping_under_the_natural_gradient(rng):
    for p, z, ratio in peaked_policies(rng):
        for low, high in ((0.2, OFF_HIGH), (OFF_LOW, 0.2)):
            expected = removed_terms(p, ratio, low, high, natural=True)
            assert natural_change(p, z, ratio, low, high) == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize("natural", [False, True])
def test_on_peaked_policies_clip_low_raises_and_clip_high_lowers_entropy(rng, natural):
    policies = [(p, ratio) for p, _, ratio in peaked_policies(rng, 200)]
    low = [change for p, r in policies if (change := removed_terms(p, r, 0.2, OFF_HIGH, natural))]
    high = [change for p, r in policies if (change := removed_terms(p, r, OFF_LOW, 0.2, natural))]
    assert len(low) > 50 and len(high) > 50
    assert min(low) > 0
    assert max(high) < 0


def test_without_clipping_a_random_reward_changes_nothing_in_expectation(rng):
    for p, z, ratio in peaked_policies(rng, 20):
        assert exact_change(p, z, ratio, OFF_LOW, OFF_HIGH) == pytest.approx(0, abs=1e-9)
