"""Clip_B, Clip_V, the sign arms, SENT, EntroPIC and the neighbours: selections and weights against naive loops."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

import workbench as wb
from tests.methods.made_up import PROGRESS, double_policy, made_up_rollouts
from workbench.config import ConfigError, make_config
from workbench.methods.discriminator import ClipB, ClipV, DiscriminatorArms
from workbench.methods.entropic import Entropic
from workbench.methods.flexible_entropy import FlexibleEntropy
from workbench.methods.high_entropy_mask import HighEntropyMask
from workbench.methods.sent import SemanticCurriculum, SentKl
from workbench.methods.steer import Steer
from workbench.tables import Rollouts, Table
from workbench.training.trainer import Trainer
from workbench.training.update import score_in_parts


@pytest.fixture(scope="module")
def batch():
    policy = double_policy()
    r = made_up_rollouts(policy)
    g = torch.Generator().manual_seed(5)
    advantage = torch.randn(len(r.sequences), generator=g, dtype=torch.float64)
    advantage[3] = 0.0
    now = score_in_parts(policy, r, 4096)
    mask = torch.ones_like(r.tokens.sequence, dtype=torch.bool)
    mask[5:9] = False
    return r.with_tokens(
        advantage=r.broadcast_to_tokens(advantage), logp=now.logp, current_entropy=now.entropy, mask=mask
    )


def columns(batch, *names):
    return [batch.tokens[name].numpy() for name in names]


def everything(batch):
    return torch.ones_like(batch.tokens.mask)


def test_clip_b_leaves_out_punished_tokens_far_below_the_mean(batch):
    old, entropy, advantage = columns(batch, "old_logp", "entropy", "advantage")
    s = np.exp(old) * (entropy + old)
    method = ClipB(mu=0.5)
    kept = method.mask(batch, everything(batch)).numpy()
    expected = (advantage >= 0) | (s - s.mean() >= -0.5 * s.std())
    assert (kept == expected).all() and not expected.all()
    assert method.measures()["removed_fraction"] == pytest.approx((~expected).mean())


def test_clip_b_keeps_everything_where_all_tokens_are_alike():
    tokens = {name: torch.full((4,), -0.5, dtype=torch.float64) for name in ("old_logp", "entropy", "advantage")}
    alike = Rollouts([], Table(), Table(**tokens))
    assert ClipB(mu=0.1).mask(alike, torch.ones(4, dtype=torch.bool)).all()


@pytest.mark.parametrize("fraction", [1.0, 0.02])
def test_clip_v_leaves_out_punished_tokens_that_lower_entropy_most(batch, fraction):
    old, entropy, advantage, expected_s = columns(batch, "old_logp", "entropy", "advantage", "expected_discriminator")
    gap = expected_s - np.exp(old) * (entropy + old)
    removed = (advantage <= 0) & (gap > 0.5 * gap.std())
    assert removed.mean() > 0.02
    if fraction < 1:
        count = int(fraction * len(gap))
        punished = np.where(advantage < 0, gap, -np.inf)
        removed = punished >= np.sort(punished)[-count]
    kept = ClipV(mu=0.5, max_fraction=fraction).mask(batch, everything(batch)).numpy()
    assert (kept == ~removed).all()


def test_clip_v_that_can_remove_no_token_is_cautioned_and_asks_for_nothing():
    def config(**parameters):
        return make_config({"methods": ["grpo", {"name": "clip_v", **parameters}]})

    assert "clip_v.max_fraction" in config().cautions()[0], "32·16·32 tokens at most in 4 updates, times 10⁻⁴"
    assert config(max_fraction=1e-3).cautions() == []
    for off in ({"mu": math.inf}, {"max_fraction": 0.0}):
        assert config(**off).cautions() == []
        assert ClipV(**off).needs() == set()


def test_larger_mu_removes_no_more(batch):
    for kind in (ClipB, ClipV):
        options = {"max_fraction": 1.0} if kind is ClipV else {}
        removed = [(~kind(mu=mu, **options).mask(batch, everything(batch))).sum() for mu in (0.3, 1.0, 3.0)]
        assert removed[0] > removed[1] >= removed[2]


@pytest.mark.parametrize("positive", ["all", "above", "below", "none"])
def test_sign_arms_split_by_the_typical_probability(batch, positive):
    old, entropy, advantage = columns(batch, "old_logp", "entropy", "advantage")
    above = np.exp(old) > np.exp(-entropy)
    keep = {"all": above | ~above, "above": above, "below": ~above, "none": above & ~above}
    negative = {"all": "below", "above": "all", "below": "above", "none": "all"}[positive]
    kept = DiscriminatorArms(positive=positive, negative=negative).mask(batch, everything(batch)).numpy()
    expected = np.where(advantage > 0, keep[positive], np.where(advantage < 0, keep[negative], True))
    assert (kept == expected).all()


def test_arms_that_train_nothing_are_refused():
    with pytest.raises(ConfigError, match="both arms 'none'"):
        make_config({"methods": ["grpo", {"name": "discriminator_arms", "positive": "none", "negative": "none"}]})


def test_arms_that_leave_out_nothing_are_cautioned():
    assert "inert" in make_config({"methods": ["grpo", "discriminator_arms"]}).cautions()[0]
    assert not make_config({"methods": ["grpo", {"name": "discriminator_arms", "positive": "above"}]}).cautions()


@pytest.mark.parametrize("variant", ["paper", "released"])
def test_sent_penalises_low_entropy_tokens_and_more_where_covariance_is_largest(batch, variant):
    entropy, logp, advantage, mask = columns(batch, "current_entropy", "logp", "advantage", "mask")
    low = mask & (entropy <= np.quantile(entropy[mask], 0.8))
    cov = (logp - logp[low].mean()) * (advantage - advantage[low].mean())
    count = int(0.1 * low.sum())
    high = low & (cov >= np.sort(cov[low])[-count])
    tail = low & (cov <= np.sort(cov[low])[count - 1])
    expected = np.where(high, 0.2, np.where(low if variant == "paper" else tail, 0.05, 0.0))
    method = SentKl(variant=variant, high_cov_share=0.1)
    marks = method.mark(batch)
    np.testing.assert_allclose(marks["sent_kl_beta"].numpy(), expected)
    tokens = batch.with_tokens(**marks).tokens
    now = tokens.logp.clone().requires_grad_()
    loss = method.regulariser(tokens, now, now)
    old = batch.tokens.old_logp.numpy()
    np.testing.assert_allclose(loss.detach().numpy(), expected * np.abs(logp - old))
    np.testing.assert_allclose(torch.autograd.grad(loss.sum(), now)[0].numpy(), expected * np.sign(logp - old))
    unclipped = tuple(float(x) for x in method.clip(batch, torch.tensor(0.2), torch.tensor(0.2)))
    assert method.measures()["high_cov_prob"] == pytest.approx(np.exp(logp)[high].mean())
    assert unclipped == ((1.0, math.inf) if variant == "released" else (pytest.approx(0.2), pytest.approx(0.2)))


def test_sents_ablations(batch):
    no_boost = SentKl(high_cov_boost=False, high_cov_share=0.1).mark(batch)["sent_kl_beta"]
    assert set(no_boost.unique().tolist()) == {0.0, 0.05}
    only_boost = SentKl(low_entropy_kl=False, high_cov_share=0.1).mark(batch)["sent_kl_beta"]
    assert set(only_boost.unique().tolist()) == {0.0, 0.2}
    for off in ({"low_entropy_kl": False, "high_cov_boost": False}, {"beta_low": 0.0, "beta_high": 0.0}):
        assert SentKl(**off).needs() == set()
        assert SentKl(**off).mark(batch) == {}


def test_sent_to_the_reference_policy_has_the_gradient_of_k3(batch):
    method = SentKl(anchor="ref", high_cov_share=0.1)
    assert method.needs() == {"current", "ref_logp"}
    tokens = batch.with_tokens(**method.mark(batch)).tokens
    now = tokens.logp.clone().requires_grad_()
    slope = torch.autograd.grad(method.regulariser(tokens, now, now).sum(), now)[0]
    expected = tokens.sent_kl_beta * (1 - (tokens.ref_logp - tokens.logp).exp())  # of e^d − d − 1, d = ref − logp
    torch.testing.assert_close(slope, expected)
    assert slope.abs().max() > 0.01


def test_the_bundle_sent_passes_its_switches_on():
    switches = {"variant": "released", "anchor": "ref", "low_entropy_kl": False, "high_cov_boost": True}
    entries = {m["name"]: m for m in make_config({"methods": [{"name": "sent", "stages": 1, **switches}]}).methods}
    assert list(entries) == ["grpo", "semantic_curriculum", "sent_kl", "kl_reference"]
    assert entries["sent_kl"].items() >= switches.items()
    assert (entries["semantic_curriculum"]["stages"], entries["kl_reference"]["coefficient"]) == (1, 0.001)


def test_released_sent_leaves_no_room_for_other_clip_bounds_and_the_papers_does():
    for variant, accepted in (("paper", True), ("released", False)):
        methods = {"methods": ["grpo", {"name": "sent_kl", "variant": variant}, "clip_higher"]}
        if accepted:
            make_config(methods)
            continue
        with pytest.raises(ConfigError, match="each give a clip"):
            make_config(methods)


def test_sent_to_the_old_policy_with_one_update_is_refused():
    with pytest.raises(ConfigError, match="anchor 'ref'"):
        make_config({"methods": ["grpo", "sent_kl"]}, {"training.updates_per_rollout": 1})
    make_config({"methods": ["grpo", {"name": "sent_kl", "anchor": "ref"}]}, {"training.updates_per_rollout": 1})


def test_the_curriculum_goes_from_certain_to_uncertain_prompts():
    prompts = Table(id=torch.arange(6), semantic_entropy=torch.tensor([0.5, 0.0, 2.0, 0.0, 1.0, 0.7]))
    method, seen = SemanticCurriculum(stages=3), []
    for step in (1, 4, 5, 8, 9, 12):
        method.begin(replace(PROGRESS, step=step, steps=12))
        seen.append(method.pool(prompts, torch.ones(6, dtype=torch.bool)).nonzero().squeeze(1).tolist())
    assert seen == [[1, 3], [1, 3], [0, 5], [0, 5], [2, 4], [2, 4]]


def test_the_bundle_sent_samples_the_initial_policy_and_stages_the_bundled_task():
    trainer = Trainer(wb.preset("smoke", {"methods": ["sent"], "task.train_size": 24, "training.steps": 4}))
    semantic = trainer.collector.table.semantic_entropy
    assert semantic.min() >= 0 and semantic.max() <= math.log(8) + 1e-6 and semantic.std() > 0.1
    first, last = (trainer.step(k).rollouts.sequences.prompt_id for k in (1, 3))
    assert semantic[first].max() <= semantic[last].min()


def test_more_stages_than_steps_are_refused():
    with pytest.raises(ConfigError, match=r"semantic_curriculum\.stages \(9\)"):
        make_config({"methods": ["grpo", {"name": "semantic_curriculum", "stages": 9}]}, {"training.steps": 8})


def naive_alpha(entropies, target, proportional, integral):
    total, path = 0.0, []
    for entropy in entropies:
        error = entropy - target
        path.append(min(1.0, max(-1.0, proportional * error + integral * total)))
        total += error
    return path


def of_entropy(value):
    ones = torch.ones(4, dtype=torch.float64)
    tokens = Table(
        current_entropy=value * ones, logp=-0.01 * ones, old_logp=-0.02 * ones, advantage=ones, mask=ones.bool()
    )
    return Rollouts([], Table(), tokens)


@pytest.mark.parametrize(("proportional", "integral"), [(1.0, 0.01), (10.0, 0.0), (5.0, 0.03)])
def test_entropic_controls_by_error_and_integral(proportional, integral):
    entropies = [0.327, 0.2, 0.12, 0.05, 0.08, 0.1, 0.7, 0.9, 0.1]
    method, path = Entropic(target=0.1, proportional=proportional, integral=integral), []
    for entropy in entropies:
        method.mark(of_entropy(entropy))
        path.append(method.measures()["alpha"])
    assert path == pytest.approx(naive_alpha(entropies, 0.1, proportional, integral))


def test_entropic_without_a_token_in_the_loss_keeps_its_state(batch):
    method = Entropic(target=0.5)
    method.mark(batch)
    before = method.state_dict()
    nothing = batch.with_tokens(mask=torch.zeros_like(batch.tokens.mask))
    assert (method.mark(nothing)["entropic_scale"] == 0).all()
    assert method.state_dict() == before
    assert all(math.isfinite(value) for value in method.measures().values())


def test_entropic_under_another_denominator_is_cautioned():
    assert not make_config({"methods": ["grpo", "entropic"]}).cautions()
    config = make_config({"methods": ["grpo", "entropic"]}, {"objective.denominator": "sequences"})
    assert "objective.denominator" in config.cautions()[0]


PUBLISHED_STARTS = [(9.7, 0.1165, 0.1, 0.163), (9.7, 0.1165, 0.15, -0.327), (4.9, 0.327, 0.5, -0.873)]


@pytest.mark.parametrize(("gain", "start", "target", "published"), PUBLISHED_STARTS)
def test_the_first_alpha_of_the_published_curves(gain, start, target, published):
    """α_0 = K_p (H_0 − H*), gains fitted to the authors' curves (S-fit), H_0 read as 0.116 to 0.120 and 0.327."""
    method = Entropic(target=target, proportional=gain, integral=0.0)
    method.mark(of_entropy(start))
    assert method.measures()["alpha"] == pytest.approx(published, abs=0.03)
    script = Entropic(target=target)
    script.mark(of_entropy(start))
    assert abs(script.measures()["alpha"]) < abs(published) / 4, "the script's K_p = 1 does not give the curves"


def test_entropic_adds_a_mean_over_likely_tokens_of_the_unclipped_term(batch):
    method = Entropic(target=0.5, threshold=0.3)
    marks = method.mark(batch)
    logp, old, advantage, mask = columns(batch, "logp", "old_logp", "advantage", "mask")
    likely = mask & (np.exp(logp) > 0.3)
    alpha = method.measures()["alpha"]
    tokens = batch.with_tokens(**marks).tokens
    now = tokens.logp.clone().requires_grad_()
    loss = method.regulariser(tokens, now, now).sum() / mask.sum()  # the loss's own mean over tokens
    ratio = np.exp(logp - old)
    assert loss.item() == pytest.approx(alpha * (-ratio * np.abs(advantage))[likely].mean())
    slope = torch.autograd.grad(loss, now)[0].numpy()
    np.testing.assert_allclose(slope, np.where(likely, -alpha * ratio * np.abs(advantage) / likely.sum(), 0.0))


def test_entropic_without_a_likely_token_adds_nothing(batch):
    method = Entropic(target=0.5, threshold=0.999999)
    assert (method.mark(batch)["entropic_scale"] == 0).all()


@pytest.mark.parametrize(("side", "fraction"), [("high", 0.2), ("low", 0.8), ("high", 0.001)])
def test_the_80_20_mask_keeps_the_ceiling_of_its_share(batch, side, fraction):
    entropy, mask = columns(batch, "current_entropy", "mask")
    method = HighEntropyMask(fraction=fraction, side=side)
    kept = method.mask(batch, batch.tokens.mask).numpy()
    count = math.ceil(fraction * mask.sum())
    assert kept.sum() == count and not (kept & ~mask).any()
    left = mask & ~kept
    last = entropy[kept].min() if side == "high" else entropy[kept].max()
    assert method.measures()["threshold"] == last
    if side == "high":
        assert entropy[kept].min() >= entropy[left].max()
    else:
        assert entropy[kept].max() <= entropy[left].min()


@pytest.mark.parametrize("kind", ["exponential", "linear"])
def test_steer_weighs_by_the_first_order_entropy_change(batch, kind):
    logp, old, entropy, advantage, mask = columns(batch, "logp", "old_logp", "current_entropy", "advantage", "mask")
    p = np.exp(logp)
    change = np.abs(advantage / np.exp(old) * p * (1 - p) * (logp + entropy))
    bottom, top = change[mask].min(), change[mask].max()
    if kind == "exponential":
        expected = np.clip(np.exp(math.log(0.8) / max(top, 0.02) * change), 0.8, 1)
    else:
        expected = 1.2 - 0.4 * (change - bottom) / (top - bottom)
    method = Steer(map=kind)
    weight = method.weight(batch, torch.ones_like(batch.tokens.logp)).numpy()
    np.testing.assert_allclose(weight[mask], expected[mask])
    assert weight[mask].min() == pytest.approx(0.8)
    assert method.measures() == pytest.approx({"largest_change": top, "mean_weight": expected[mask].mean()})


@pytest.mark.parametrize("kind", ["exponential", "linear"])
def test_steer_of_equal_tokens_and_of_none(batch, kind):
    method, even = Steer(map=kind), torch.ones_like(batch.tokens.logp)
    alike = batch.with_tokens(advantage=torch.zeros_like(even))
    assert (method.weight(alike, even) == (1.0 if kind == "exponential" else 1.2)).all()
    nothing = batch.with_tokens(mask=torch.zeros_like(batch.tokens.mask))
    assert torch.equal(method.weight(nothing, even), even)


def bounds(method, step, probability, steps=8):
    method.begin(replace(PROGRESS, step=step, steps=steps))
    tokens = Table(old_logp=torch.tensor([math.log(probability)], dtype=torch.float64))
    low, high = method.clip(Rollouts([], Table(), tokens), torch.tensor(0.2), torch.tensor(0.2))
    return low.item(), high.item()


@pytest.mark.parametrize("probability", [0.1, 0.9])
def test_flexible_bounds_follow_their_schedules(probability):
    f, std = 0.4 - 0.3 * probability, 0.2
    for step in range(1, 9):
        share = 1 - 2 * step / 8
        id_low, id_high = bounds(FlexibleEntropy(schedule="id"), step, probability)
        did_low, did_high = bounds(FlexibleEntropy(schedule="did"), step, probability)
        if share >= 0:
            assert (id_low, id_high) == pytest.approx((std, share * f + (1 - share) * std))
            assert (did_low, did_high) == pytest.approx((std, share * std + (1 - share) * f))
        else:
            assert (id_low, id_high) == pytest.approx(((1 + share) * f - share * std, std))
            assert (did_low, did_high) == pytest.approx(((1 + share) * f - share * std, f))


def test_oscillating_bounds_switch_at_their_thresholds():
    """low = 0.2·H₀ = 0.08, high falls from 0.4 to 0.08 over the run."""
    method, raising = FlexibleEntropy(schedule="od"), []
    for step, entropy in enumerate([0.4, 0.2, 0.07, 0.15, 0.19, 0.3, 0.1, 0.08], 1):
        method.begin(replace(PROGRESS, step=step, steps=8))
        method.look(Rollouts([], Table(), Table(entropy=torch.tensor([entropy], dtype=torch.float64))))
        raising.append(bool(method.measures()["raising"]))
    assert raising == [False, False, True, True, True, False, False, True]
    low, high = bounds(method, 8, 0.1)
    assert (low, high) == pytest.approx((0.2, 0.37)), "raising: the upper bound is flexible"


def test_flexible_bounds_with_one_update_per_rollout_are_cautioned():
    methods = {"methods": ["grpo", "flexible_entropy"]}
    assert "inert" in make_config(methods, {"training.updates_per_rollout": 1}).cautions()[0]
    assert not make_config(methods).cautions()


def test_bounds_that_would_be_negative_are_refused():
    with pytest.raises(ConfigError, match=r"flexible_entropy\.slope"):
        make_config({"methods": ["grpo", {"name": "flexible_entropy", "intercept": 0.1}]})
