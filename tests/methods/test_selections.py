"""Tokens chosen over a whole mini-batch: covariance clipping, KL-Cov, random positive clipping, sign masks, TIS."""

import math
from dataclasses import replace

import pytest
import torch

from tests.methods.made_up import PROGRESS, double_policy, made_up_rollouts
from workbench.config import ConfigError, make_config
from workbench.methods import statistics
from workbench.methods.clip_cov import ClipCov, already_clipped, covariance
from workbench.methods.kl_cov import KlCov
from workbench.methods.rand_pos_clip import RandPosClip
from workbench.methods.sign_mask import SignMask
from workbench.methods.tis import Tis
from workbench.training.update import score_in_parts


@pytest.fixture(scope="module")
def batch():
    policy = double_policy()
    r = made_up_rollouts(policy)
    g = torch.Generator().manual_seed(5)
    advantage = torch.randn(len(r.sequences), generator=g, dtype=torch.float64)
    advantage[3] = 0.0
    bounds = torch.full_like(r.tokens.old_logp, 0.2)
    return r.with_tokens(
        advantage=r.broadcast_to_tokens(advantage),
        logp=score_in_parts(policy, r, 4096).logp,
        clip_low=bounds,
        clip_high=bounds,
        mask=torch.ones_like(bounds, dtype=torch.bool),
    )


def ones(batch):
    return torch.ones_like(batch.tokens.old_logp)


def naive_covariance(batch):
    a, lp = batch.tokens.advantage.tolist(), batch.tokens.logp.tolist()
    mean_a, mean_lp = sum(a) / len(a), sum(lp) / len(lp)
    return [(x - mean_a) * (y - mean_lp) for x, y in zip(a, lp, strict=True)]


def naively_clipped(batch):
    t = batch.tokens
    ratios = [math.exp(x - y) for x, y in zip(t.logp.tolist(), t.old_logp.tolist(), strict=True)]
    return [(a < 0 and r < 0.8) or (a > 0 and r > 1.2) for a, r in zip(t.advantage.tolist(), ratios, strict=True)]


def test_covariance_is_over_the_whole_batch(batch):
    assert covariance(batch).tolist() == pytest.approx(naive_covariance(batch), abs=1e-12)
    assert already_clipped(batch).tolist() == naively_clipped(batch)


@pytest.mark.parametrize("fraction", [0.01, 0.05])
def test_clip_cov_zeroes_exactly_its_share_of_tokens_and_only_candidates(batch, fraction):
    method = ClipCov(fraction=fraction, low=0.1, high=2.0)
    method.begin(PROGRESS)
    zeroed = method.weight(batch, ones(batch)) == 0
    pairs = zip(naive_covariance(batch), naively_clipped(batch), strict=True)
    candidates = torch.tensor([0.1 < c < 2.0 and not cut for c, cut in pairs])
    assert zeroed.sum() == max(1, int(fraction * len(batch.tokens))) < candidates.sum()
    assert (candidates | ~zeroed).all()


def test_clip_cov_takes_all_candidates_when_there_are_few_and_none_when_there_are_none(batch):
    method = ClipCov(fraction=1.0, low=0.1, high=2.0)
    method.begin(PROGRESS)
    pairs = zip(naive_covariance(batch), naively_clipped(batch), strict=True)
    assert (method.weight(batch, ones(batch)) == 0).tolist() == [0.1 < c < 2.0 and not cut for c, cut in pairs]
    assert (ClipCov(low=1e6, high=1e7).weight(batch, ones(batch)) == 1).all()


def test_clip_cov_draws_anew_at_every_update(batch):
    method, seen = ClipCov(fraction=0.02, low=0.01, high=9.0), []
    for update in (0, 1):
        method.begin(replace(PROGRESS, update=update))
        seen.append(method.weight(batch, ones(batch)))
    assert not torch.equal(*seen)


def test_kl_cov_penalises_the_largest_covariances_and_clips_nothing(batch):
    method = KlCov(fraction=0.05, coefficient=0.7)
    count = int(0.05 * len(batch.tokens))
    cut = sorted(naive_covariance(batch))[-count]
    columns = method.mark(batch)
    assert columns["kl_cov_selected"].tolist() == [c >= cut for c in naive_covariance(batch)]
    tokens = batch.with_tokens(**columns).tokens
    logp = tokens.logp.clone().requires_grad_()
    penalty = method.regulariser(tokens, logp, logp)
    gaps = (tokens.logp - tokens.old_logp).tolist()
    chosen = columns["kl_cov_selected"].tolist()
    assert penalty.tolist() == pytest.approx([0.7 * abs(d) if c else 0.0 for d, c in zip(gaps, chosen, strict=True)])
    slopes = [0.7 * math.copysign(1, d) if c else 0.0 for d, c in zip(gaps, chosen, strict=True)]
    assert torch.autograd.grad(penalty.sum(), logp)[0].tolist() == pytest.approx(slopes)
    low, high = method.clip(batch, torch.tensor(0.2), torch.tensor(0.2))
    assert (low.item(), high.item()) == (1.0, math.inf)


def test_tokens_outside_the_loss_are_neither_counted_nor_chosen(batch):
    outside = torch.zeros_like(batch.tokens.mask)
    outside[::2] = True
    part = batch.with_tokens(mask=~outside)
    advantage, logp = (batch.tokens[name][~outside] for name in ("advantage", "logp"))
    inside = (advantage - advantage.mean()) * (logp - logp.mean())
    torch.testing.assert_close(covariance(part)[~outside], inside)
    for method in (ClipCov(fraction=1.0, low=-9.0, high=9.0), RandPosClip(fraction=1.0)):
        method.begin(PROGRESS)
        assert not (method.weight(part, ones(part)) == 0)[outside].any()
    assert not KlCov(fraction=1.0).mark(part)["kl_cov_selected"][outside].any()


def test_kl_cov_with_one_update_per_rollout_is_refused():
    with pytest.raises(ConfigError, match=r"training\.updates_per_rollout 1"):
        make_config({"methods": ["grpo", "kl_cov"]}, {"training.updates_per_rollout": 1})


def test_an_empty_covariance_band_is_refused():
    with pytest.raises(ConfigError, match=r"clip_cov.low \(5.0\) must be below"):
        make_config({"methods": ["grpo", {"name": "clip_cov", "low": 5.0, "high": 5.0}]})


def test_random_positive_clipping_zeroes_its_share_of_all_tokens_among_the_rewarded(batch):
    method = RandPosClip(fraction=0.1)
    method.begin(PROGRESS)
    zeroed = method.weight(batch, ones(batch)) == 0
    assert zeroed.sum() == int(0.1 * len(batch.tokens))
    assert (batch.tokens.advantage[zeroed] > 0).all()
    nothing = batch.with_tokens(advantage=-batch.tokens.advantage.abs())
    assert (method.weight(nothing, ones(batch)) == 1).all()


@pytest.mark.parametrize("denominator", ["all", "kept"])
def test_sign_masks_keep_zero_advantages_and_one_sign(batch, denominator):
    for train, kept in (("nonnegative", batch.tokens.advantage >= 0), ("nonpositive", batch.tokens.advantage <= 0)):
        method = SignMask(train=train, denominator=denominator)
        assert torch.equal(method.weight(batch, ones(batch)) != 0, kept)
        mask = method.mask(batch, torch.ones_like(kept))
        assert torch.equal(mask, kept if denominator == "kept" else torch.ones_like(kept))


@pytest.mark.parametrize("level", ["token", "sequence", "geometric"])
@pytest.mark.parametrize("mode", ["truncate", "mask"])
def test_truncated_importance_weights_by_hand(batch, level, mode):
    method = Tis(level=level, mode=mode, cap=1.1, floor=0.9)
    gaps = (batch.tokens.old_logp - batch.tokens.rollout_logp).split(batch.sequences.length.tolist())
    expected = []
    for gap in gaps:
        gap = gap.tolist()
        whole = sum(gap) / (len(gap) if level == "geometric" else 1)
        for g in gap if level == "token" else [whole] * len(gap):
            w = math.exp(g)
            expected.append(min(max(w, 0.9), 1.1) if mode == "truncate" else float(0.9 <= w <= 1.1))
    assert method.weight(batch, ones(batch)).tolist() == pytest.approx(expected, abs=1e-12)


def test_where_sampler_and_trainer_agree_the_weights_are_exactly_one(batch):
    same = batch.with_tokens(rollout_logp=batch.tokens.old_logp)
    for level in ("token", "sequence", "geometric"):
        assert (Tis(level=level).weight(same, ones(batch)) == 1).all()


def test_importance_weights_of_the_samplers_own_log_probs_are_cautioned():
    assert "inert" in make_config({"methods": ["grpo", "tis"]}).cautions()[0]
    assert not make_config({"methods": ["grpo", "tis"]}, {"training.old_logp": "trainer"}).cautions()


def test_nucleus_sampling_without_correction_is_refused():
    for overrides in ({}, {"training.old_logp": "trainer"}):
        with pytest.raises(ConfigError, match=r"rollout.top_p is 0.9"):
            make_config({}, {"rollout.top_p": 0.9, **overrides})
    make_config({"methods": ["grpo", "tis"]}, {"rollout.top_p": 0.9, "training.old_logp": "trainer"})


def test_the_largest_are_chosen_with_ties_in_the_order_of_their_keys(batch):
    values = torch.round(batch.tokens.logp)
    chosen = statistics.largest(values, 7, batch)
    keys = statistics.token_key(batch).tolist()
    expected = sorted(range(len(keys)), key=lambda i: (-float(values[i]), keys[i]))[:7]
    assert sorted(expected) == chosen.nonzero().squeeze(1).tolist()
    assert statistics.largest(values, 0, batch).sum() == 0
    assert statistics.largest(values, 10**6, batch).all()


@pytest.mark.parametrize("q", [0.0, 0.2, 0.8, 1.0])
def test_quantiles_are_torchs(batch, q):
    got = statistics.quantile(batch.tokens.logp, q)
    torch.testing.assert_close(got, torch.quantile(batch.tokens.logp, q))


def test_uniform_draws_are_uniform_and_depend_on_key_and_salt():
    key = torch.arange(100_000)
    draws = statistics.uniform(key, 1, 2, 3)
    assert draws.min() >= 0 and draws.max() < 1
    counts = torch.histc(draws, 20, 0, 1)
    assert ((counts - 5000) ** 2 / 5000).sum() < 45, "chi-squared with 19 degrees of freedom, p = 7e-4"
    assert torch.equal(draws.flip(0), statistics.uniform(key.flip(0), 1, 2, 3))
    other = statistics.uniform(key, 1, 2, 4)
    assert abs(torch.corrcoef(torch.stack([draws, other]))[0, 1]) < 0.02
    assert abs(torch.corrcoef(torch.stack([draws[1:], draws[:-1]]))[0, 1]) < 0.02


def test_population_std_over_a_mask(batch):
    mask = batch.tokens.advantage > 0
    got = statistics.std(batch.tokens.logp, mask)
    torch.testing.assert_close(got, batch.tokens.logp[mask].std(correction=0))
