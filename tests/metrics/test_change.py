"""ΔH, its contributions and its first-order prediction on made-up tokens, against plain loops in fp64."""

import math

import numpy as np
import pytest
import torch

from workbench.metrics.change import CHANGE, change_metrics, first_order_push
from workbench.tables import Rollouts, Table, token_index

DIVISIONS = {
    "sign": ["positive", "negative", "zero_advantage"],
    "quadrant": ["positive_likely", "positive_unlikely", "negative_likely", "negative_unlikely", "zero_advantage"],
    "clipping": ["clipped_low", "clipped_high", "unclipped", "outside"],
    "correctness": ["correct", "incorrect"],
    "token class": ["class_formal", "class_logical", "class_metacognitive", "class_rest"],
}


def made_up(sequences=40, seed=0) -> Rollouts:
    """Tokens with every case in them: not scored again, in no update, of weight 0, clipped on either side, A = 0."""
    g = torch.Generator().manual_seed(seed)

    def normal(scale=1.0):
        return scale * torch.randn(count, generator=g)

    length = torch.randint(1, 12, (sequences,), generator=g)
    sequence, position = token_index(length)
    count = len(sequence)
    entropy, old = normal().abs(), -normal().abs()
    logp = (old + normal(0.4)).masked_fill(torch.rand(count, generator=g) < 0.2, math.nan)
    advantage = torch.tensor([-1.3, 0.0, 0.4, 2.0])[torch.randint(4, (sequences,), generator=g)][sequence]
    after = (entropy + normal(0.2)).masked_fill(torch.rand(sequences, generator=g)[sequence] < 0.3, math.nan)
    tokens = Table(
        sequence=sequence,
        position=position,
        entropy=entropy,
        old_logp=old,
        logp=logp,
        ratio=(logp - old).exp(),
        clip_low=torch.full((count,), 0.2),
        clip_high=torch.full((count,), 0.28),
        weight=(torch.rand(count, generator=g) > 0.1).float(),
        expected_discriminator=normal(0.1),
        advantage=advantage,
        entropy_after=after,
        logp_after=old + normal(0.3),
        token_class=torch.randint(4, (count,), generator=g),
    )
    correct = torch.rand(sequences, generator=g) < 0.5
    return Rollouts([], Table(length=length, group=torch.arange(sequences) // 4, correct=correct), tokens)


def rows(r: Rollouts) -> list[dict]:
    """The tokens that were scored again, one dictionary each."""
    columns = {name: column.tolist() for name, column in r.tokens.items()}
    every = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    correct = r.sequences.correct.tolist()
    return [row | {"correct": correct[row["sequence"]]} for row in every if not math.isnan(row["entropy_after"])]


def clip_name(t: dict) -> str:
    if math.isnan(t["logp"]) or t["weight"] == 0:
        return "outside"
    if t["advantage"] < 0 and t["ratio"] < 1 - 0.2:
        return "clipped_low"
    return "clipped_high" if t["advantage"] > 0 and t["ratio"] > 1 + 0.28 else "unclipped"


def sign_name(t: dict) -> str:
    return "zero_advantage" if t["advantage"] == 0 else "positive" if t["advantage"] > 0 else "negative"


def quadrant_name(t: dict) -> str:
    side = "likely" if math.exp(t["old_logp"]) >= math.exp(-t["entropy"]) else "unlikely"
    return sign_name(t) if t["advantage"] == 0 else f"{sign_name(t)}_{side}"


NAMED = {
    "sign": sign_name,
    "quadrant": quadrant_name,
    "clipping": clip_name,
    "correctness": lambda t: "correct" if t["correct"] else "incorrect",
    "token class": lambda t: DIVISIONS["token class"][t["token_class"]],
}


def test_the_change_is_the_mean_over_the_tokens_scored_again():
    r = made_up()
    chosen, m = rows(r), change_metrics(r)
    assert m["change/tokens"] == len(chosen) < len(r.tokens)
    assert m["change/entropy"] == pytest.approx(np.mean([t["entropy_after"] - t["entropy"] for t in chosen]), rel=1e-12)
    assert m["change/entropy_after"] - m["change/entropy_before"] == pytest.approx(m["change/entropy"], rel=1e-9)


@pytest.mark.parametrize("division", DIVISIONS)
def test_contributions_are_sums_over_their_class_and_add_up_to_the_change(division):
    r = made_up()
    chosen, m, names = rows(r), change_metrics(r), DIVISIONS[division]
    parts = [m[f"change/{name}"] for name in names]
    for name, part in zip(names, parts, strict=True):
        mine = [t["entropy_after"] - t["entropy"] for t in chosen if NAMED[division](t) == name]
        assert mine, f"no token is {name}: the made-up tokens test nothing"
        assert part == pytest.approx(sum(mine) / len(chosen), rel=1e-10)
    assert sum(parts) == pytest.approx(m["change/entropy"], rel=1e-12, abs=1e-15)


def test_every_contribution_belongs_to_one_of_the_divisions():
    listed = {f"change/{name}" for names in DIVISIONS.values() for name in names}
    summed = {metric.name for metric in CHANGE.metrics.values() if "add up to change/entropy" in metric.definition}
    assert summed == listed


def test_the_prediction_is_over_tokens_that_were_trained_on():
    r = made_up()
    m = change_metrics(r)
    x, y = [], []
    for t in rows(r):
        if math.isnan(t["logp"]):
            continue
        s = math.exp(t["old_logp"]) * (t["entropy"] + t["old_logp"])
        clipped = clip_name(t) in ("clipped_low", "clipped_high")
        step = 0.0 if clipped else t["weight"] * t["ratio"] * t["advantage"]
        x.append(-step * (s - t["expected_discriminator"]))
        y.append(t["entropy_after"] - t["entropy"])
    ranked = [np.array([sum(o < v for o in values) + (values.count(v) - 1) / 2 for v in values]) for values in (x, y)]
    assert m["change/predicted"] == pytest.approx(np.mean(x), rel=1e-5)
    assert m["change/prediction_correlation"] == pytest.approx(np.corrcoef(x, y)[0, 1], rel=1e-5)
    assert m["change/prediction_rank_correlation"] == pytest.approx(np.corrcoef(*ranked)[0, 1], rel=1e-9)
    assert m["change/prediction_slope"] == pytest.approx(np.polyfit(x, y, 1)[0], rel=1e-5)


def test_divergence_and_moved_tokens():
    r = made_up()
    m, chosen = change_metrics(r), rows(r)
    d = np.array([t["logp_after"] - t["old_logp"] for t in chosen])
    moved = [abs(math.exp(t["logp_after"]) - math.exp(t["old_logp"])) > 0.1 for t in chosen]
    assert m["change/kl"] == pytest.approx(np.mean(np.exp(d) - 1 - d), rel=1e-6)
    assert m["change/moved_fraction"] == np.mean(moved) > 0


def test_one_logit_step_per_token_is_predicted_exactly_to_first_order():
    """Softmax tables in place of a model, each token's own logits moved by lr·A·(onehot − π): correlation 1, slope lr
    (arXiv 2602.03392, Theorem 3.3)."""
    g = torch.Generator().manual_seed(0)
    count, vocabulary, rate = 300, 11, 1e-5
    logits = 2 * torch.randn(count, vocabulary, generator=g, dtype=torch.float64)
    p = logits.softmax(-1)
    token = torch.multinomial(p, 1, generator=g).squeeze(1)
    advantage = torch.randn(count, generator=g, dtype=torch.float64)
    moved = logits + rate * advantage[:, None] * (torch.nn.functional.one_hot(token, vocabulary) - p)
    entropy, entropy_after = (-(z.softmax(-1) * z.log_softmax(-1)).sum(-1) for z in (logits, moved))
    old = logits.log_softmax(-1).gather(1, token[:, None]).squeeze(1)
    everyone = (p * p * (entropy[:, None] + p.log())).sum(-1)  # Σ p·S by its definition
    one = torch.ones(count, dtype=torch.float64)
    sequence = torch.arange(count)
    tokens = Table(
        sequence=sequence, position=0 * sequence, entropy=entropy, old_logp=old, logp=old, logp_after=old,
        clip_low=0.2 * one, clip_high=0.2 * one, weight=one, advantage=advantage, expected_discriminator=everyone,
        entropy_after=entropy_after,
    )  # fmt: skip
    m = change_metrics(Rollouts([], Table(length=torch.ones(count, dtype=torch.int64)), tokens))
    assert m["change/prediction_correlation"] == pytest.approx(1, abs=1e-6)
    assert m["change/prediction_slope"] == pytest.approx(rate, rel=1e-3)
    torch.testing.assert_close(entropy_after - entropy, rate * first_order_push(tokens), rtol=1e-2, atol=1e-10)


def test_what_was_scored_apart_before_the_step_takes_the_samplers_place():
    r = made_up()
    shifted = r.with_tokens(entropy_before=r.tokens.entropy_after - 0.5, logp_before=r.tokens.logp_after)
    m = change_metrics(shifted)
    assert m["change/entropy"] == pytest.approx(0.5, abs=1e-6)
    assert m["change/kl"] == 0


def test_without_a_second_scoring_there_are_no_change_metrics():
    r = made_up()
    bare = {name: column for name, column in r.tokens.items() if not name.endswith("_after")}
    assert change_metrics(Rollouts([], r.sequences, Table(**bare))) == {}
    none = r.with_tokens(entropy_after=torch.full_like(r.tokens.entropy, math.nan))
    assert change_metrics(none) == {}
