"""Step metrics against pandas on the stored frames."""

import math

import numpy as np
import pandas as pd
import pytest
import torch

import workbench as wb
from workbench.metrics.step import change_metrics, step_metrics, update_metrics
from workbench.tables import Rollouts, Table
from workbench.training.trainer import Trainer


@pytest.fixture(scope="module")
def result():
    overrides = {"rollout.samples": 8, "optimiser.learning_rate": 2e-3, "training.updates_per_rollout": 4}
    return Trainer(wb.preset("smoke", overrides)).step(1)


@pytest.fixture(scope="module")
def frames(result):
    tables = (result.rollouts.sequences, result.rollouts.tokens)
    return tuple(pd.DataFrame({k: v if isinstance(v, list) else v.numpy() for k, v in t.items()}) for t in tables)


@pytest.fixture(scope="module")
def tokens(frames):
    """fp64 tokens with the columns of their sequences beside them."""
    sequences, tokens = frames
    wide = tokens.join(sequences[["length", "correct", "group"]], on="sequence")
    return wide.astype({name: float for name in wide.select_dtypes("float32")})


def same(value, expected):
    return value == pytest.approx(expected, rel=1e-6, nan_ok=True)


def test_entropy_is_the_plain_mean_over_tokens(result, tokens):
    m = result.metrics
    assert same(m["entropy/mean"], tokens["entropy"].mean())
    assert same(m["entropy/positive"], tokens.query("advantage > 0")["entropy"].mean())
    assert same(m["entropy/negative"], tokens.query("advantage < 0")["entropy"].mean())
    assert same(m["entropy/zero_advantage"], tokens.query("advantage == 0")["entropy"].mean())


def test_entropy_by_correctness_and_groups(result, frames, tokens):
    sequences, _ = frames
    m = result.metrics
    assert same(m["entropy/correct"], tokens[tokens["correct"]]["entropy"].mean())
    assert same(m["entropy/incorrect"], tokens[~tokens["correct"]]["entropy"].mean())
    by_group = sequences.groupby("group")
    assert m["group/zero_variance_fraction"] == pytest.approx((by_group["reward"].nunique() == 1).mean())
    good = sequences[sequences["correct"] & (sequences["derivation"] != "")]
    assert m["group/distinct_correct"] == pytest.approx(
        good.groupby("group")["derivation"].nunique().sum() / by_group.ngroups
    )


def test_groups_are_all_correct_all_wrong_or_mixed(result, frames):
    sequences, _ = frames
    rate, m = sequences.groupby("group")["correct"].mean(), result.metrics
    assert m["group/all_correct_fraction"] == (rate == 1).mean()
    assert m["group/all_wrong_fraction"] == (rate == 0).mean()
    assert m["group/mixed_fraction"] == rate.between(0, 1, inclusive="neither").mean() > 0
    assert same(m["length/correct"], sequences[sequences["correct"]]["length"].mean())
    assert same(m["length/incorrect"], sequences[~sequences["correct"]]["length"].mean())
    assert same(m["length/finished_fraction"], sequences["finished"].mean())


def test_deciles_divide_every_response_into_tenths(result, tokens):
    for decile in range(10):
        low, high = decile / 10, (decile + 1) / 10
        share = tokens["position"] / tokens["length"]
        inside = tokens[(share >= low - 1e-12) & (share < high - 1e-12)]
        assert same(result.metrics[f"entropy/decile_{decile}"], inside["entropy"].mean())


def test_quadrants_part_at_the_probability_where_the_discriminator_changes_sign(result, tokens):
    probability, border = np.exp(tokens["old_logp"]), np.exp(-tokens["entropy"])
    clear = (np.log(probability) - np.log(border)).abs() > 1e-6  # the rest is a matter of fp32 digits
    s = probability * (tokens["entropy"] + tokens["old_logp"])
    assert ((s > 0) == (probability > border))[clear].all()
    for sign, name in ((1, "positive"), (-1, "negative")):
        of_sign = np.sign(tokens["advantage"]) == sign
        for likely, side in ((True, "likely"), (False, "unlikely")):
            chosen = of_sign & ((probability > border) == likely) & clear
            fraction = result.metrics[f"quadrant/{name}_{side}_fraction"]
            assert abs(fraction - chosen.mean()) <= (~clear).mean() + 1e-6  # shares are fp32
            if clear.all():
                assert same(result.metrics[f"entropy/{name}_{side}"], tokens[chosen]["entropy"].mean())


def test_the_upper_fifth_of_tokens_and_what_it_holds(result, tokens):
    m, entropy = result.metrics, tokens["entropy"]
    assert same(m["entropy/p80"], np.quantile(entropy, 0.8))
    assert same(m["entropy/top_share"], entropy[entropy > m["entropy/p80"]].sum() / entropy.sum())
    assert same(m["entropy/above_published_fraction"], (entropy > 0.672).mean())
    assert same(m["entropy/near_zero_fraction"], (entropy < 0.01).mean())


def test_covariances_and_first_order_push(result, tokens):
    m, logp, advantage = result.metrics, tokens["old_logp"], tokens["advantage"]
    p = np.exp(logp)
    assert same(m["covariance/logp_advantage"], np.cov(logp, advantage, ddof=0)[0, 1])
    assert same(m["covariance/logp_weighted"], np.cov(logp, p * advantage, ddof=0)[0, 1])
    gap = p * (tokens["entropy"] + logp) - tokens["expected_discriminator"]
    push = -advantage * gap
    assert m["discriminator/gap"] == pytest.approx(gap.mean(), abs=1e-7)
    assert m["discriminator/push"] == pytest.approx(push.mean(), abs=1e-7)
    assert m["discriminator/push_positive"] == pytest.approx(push[advantage > 0].sum() / len(push), abs=1e-7)
    assert m["discriminator/push_positive"] + m["discriminator/push_negative"] == pytest.approx(m["discriminator/push"])


def test_on_policy_the_discriminator_is_zero_in_the_mean(tokens):
    """E[S − E[S]] = 0 over samples of the policy (arXiv 2602.03392, Corollary 3.5): within four standard errors."""
    p = np.exp(tokens["old_logp"])
    gap = p * (tokens["entropy"] + tokens["old_logp"]) - tokens["expected_discriminator"]
    assert abs(gap.mean()) < 4 * gap.std() / len(gap) ** 0.5
    assert gap.std() > 0.01


def test_clip_metrics_describe_what_the_loss_clips(result, tokens):
    m, ratio = result.metrics, np.exp(tokens["logp"] - tokens["old_logp"])
    p = np.exp(tokens["old_logp"])
    gap = p * (tokens["entropy"] + tokens["old_logp"]) - tokens["expected_discriminator"]
    low, high = (tokens["advantage"] < 0) & (ratio < 0.8), (tokens["advantage"] > 0) & (ratio > 1.2)
    assert low.any() and high.any()
    for side, clipped in (("low", low), ("high", high)):
        assert m[f"clip/{side}_fraction"] == pytest.approx(clipped.mean())
        assert m[f"clip/{side}_probability"] == pytest.approx(p[clipped].mean(), rel=1e-5)
        assert m[f"clip/{side}_gap"] == pytest.approx(gap[clipped].mean(), rel=1e-4)
    assert m["update/effective_tokens"] == (tokens["advantage"] != 0).sum()
    assert m["advantage/zero_fraction"] == pytest.approx((tokens["advantage"] == 0).mean())


def test_the_samplers_gap_is_over_the_first_update(result, tokens):
    first = tokens[tokens["update"] == 0]
    assert 0 < len(first) < len(tokens)
    d = first["logp"] - first["rollout_logp"]
    assert result.metrics["gap/mean"] == pytest.approx(d.abs().mean(), rel=1e-5)
    assert result.metrics["gap/max"] == pytest.approx(d.abs().max(), rel=1e-5)
    assert result.metrics["gap/max"] < 1e-4
    assert result.metrics["gap/kl"] == pytest.approx((np.exp(d) - 1 - d).mean(), abs=1e-9)


def test_every_token_knows_the_update_that_trained_on_it(result, tokens):
    per_update = tokens.groupby("update")["group"].nunique()
    assert per_update.to_dict() == {0: 2, 1: 2, 2: 2, 3: 2}


def test_tokens_left_out_of_the_update_count_in_no_update_metric(result):
    r = result.rollouts
    logp = r.tokens.logp.clone()
    logp[::2] = float("nan")
    halved = update_metrics(Rollouts(r.prompts, r.sequences, r.tokens.with_columns(logp=logp)))
    assert halved["update/effective_tokens"] == (r.tokens.advantage != 0)[1::2].sum()
    of_none = {name for name, value in halved.items() if not math.isfinite(value)}
    assert of_none == {f"clip/{side}_{what}" for side in ("low", "high") for what in ("probability", "gap")
                       if halved[f"clip/{side}_fraction"] == 0}  # fmt: skip


def test_order_of_sequences_changes_nothing(result):
    r = result.rollouts
    order = torch.randperm(len(r.sequences))
    before, after = step_metrics(r), step_metrics(r.select_sequences(order))
    assert before == pytest.approx(after, rel=1e-9, nan_ok=True)


def test_runs_of_other_trainers_may_lack_columns(result):
    r = result.rollouts
    few = {"sequence", "position", "token", "entropy", "old_logp", "advantage"}
    tokens = type(r.tokens)(**{name: r.tokens[name] for name in few})
    sequences = type(r.tokens)(**{name: r.sequences[name] for name in ("group", "length", "reward")})
    reduced = step_metrics(Rollouts([], sequences, tokens))
    assert reduced.items() <= step_metrics(r).items() | {(k, v) for k, v in reduced.items() if math.isnan(v)}
    assert not {"length/correct", "discriminator/gap", "logp/mean"} & reduced.keys()


@pytest.mark.parametrize("trained", [True, False])
@pytest.mark.parametrize("correct", [True, False])
def test_one_response_of_one_token_has_every_metric_or_none(correct, trained):
    """The smallest batch there is: one group, one response, one token; in no update if not `trained`."""
    value = {"entropy": 0.3, "old_logp": -0.2, "rollout_logp": -0.2, "advantage": 0.0, "expected_discriminator": 0.01}
    value |= {"logp": -0.2, "ratio": 1.0, "clip_low": 0.2, "clip_high": 0.2, "weight": 1.0}
    if not trained:
        value |= dict.fromkeys(("logp", "ratio", "clip_low", "clip_high", "weight"), math.nan)
    value |= {"entropy_after": 0.25, "logp_after": -0.15}
    whole = {"sequence": 0, "position": 0, "token": 5, "token_class": 3, "update": 0 if trained else -1}
    tokens = Table(**{name: torch.tensor([number]) for name, number in (value | whole).items()})
    flags = {"correct": correct, "finished": True, "reward": float(correct), "length": 1, "group": 0, "prompt": 0}
    r = Rollouts([torch.tensor([1])], Table(**{name: torch.tensor([flag]) for name, flag in flags.items()}), tokens)
    sampled, updated, changed = step_metrics(r), update_metrics(r), change_metrics(r)
    assert sampled["entropy/mean"] == sampled["entropy/decile_0"] == sampled["entropy/p80"] == pytest.approx(0.3)
    assert math.isnan(sampled["entropy/decile_9"]) and sampled["advantage/zero_fraction"] == 1
    assert sampled["group/all_correct_fraction"] == correct and sampled["group/mixed_fraction"] == 0
    assert math.isnan(sampled["length/incorrect"]) == correct
    assert updated["update/effective_tokens"] == 0 and math.isnan(updated["ratio/mean"]) != trained
    of_clipping = changed["change/unclipped"] + changed["change/outside"]
    assert [changed["change/entropy"], changed["change/zero_advantage"], of_clipping] == pytest.approx([-0.05] * 3)
    assert not any(math.isinf(value) for value in (sampled | updated | changed).values())
