"""Scoring tokens a second time: which, with what result, and without a trace in training."""

import pytest
import torch

import workbench as wb
from tests.tiny import own_logps
from workbench.training.batching import distinct_responses
from workbench.training.change import chosen_prompts
from workbench.training.trainer import Trainer
from workbench.training.update import score, score_in_parts

ROUNDING = {"atol": 3e-5, "rtol": 1e-5}


def trainer(share=0.5, **overrides):
    return Trainer(wb.preset("smoke", {"storage.measure_change_share": share} | overrides))


def test_a_share_of_the_prompts_is_drawn_by_seed_and_step():
    draws = {(seed, step): chosen_prompts(32, 0.25, seed, step) for seed in range(4) for step in range(4)}
    assert all(len(chosen.unique()) == 8 for chosen in draws.values())
    assert len({tuple(chosen.tolist()) for chosen in draws.values()}) == 16
    assert torch.equal(chosen_prompts(32, 0.25, 1, 2), draws[1, 2])
    assert chosen_prompts(8, 1.0, 0, 1).tolist() == list(range(8))
    assert len(chosen_prompts(8, 0.01, 0, 1)) == 1
    often = torch.bincount(torch.cat([chosen_prompts(8, 0.25, 0, step) for step in range(2000)]), minlength=8)
    assert (often / 2000 - 0.25).abs().max() < 0.05


def test_chosen_tokens_carry_what_the_updated_policy_gives_them():
    t = trainer()
    r = t.step(1).rollouts
    chosen = set(chosen_prompts(len(r.prompts), 0.5, 0, 1).tolist())
    scored = ~r.tokens.entropy_after.isnan()
    assert torch.equal(scored, torch.tensor([p in chosen for p in r.broadcast_to_tokens(r.sequences.prompt).tolist()]))
    assert torch.equal(scored, ~r.tokens.logp_after.isnan())
    row = int(r.tokens.sequence[scored][0])
    mine = r.tokens.sequence == row
    prompt = r.prompts[int(r.sequences.prompt[row])]
    logp, entropy = own_logps(t.policy.model, prompt, r.tokens.token[mine])
    torch.testing.assert_close(r.tokens.logp_after[mine], logp.float(), **ROUNDING)
    torch.testing.assert_close(r.tokens.entropy_after[mine], entropy.float(), **ROUNDING)
    assert (r.tokens.entropy_after - r.tokens.entropy)[scored].abs().max() > 1e-3


def test_a_policy_that_stays_put_has_no_change():
    r = trainer(1.0, **{"optimiser.learning_rate": 1e-12}).step(1)
    torch.testing.assert_close(r.rollouts.tokens.entropy_after, r.rollouts.tokens.entropy, **ROUNDING)
    assert abs(r.metrics["change/entropy"]) < 1e-6


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_training_and_every_other_metric_are_the_same_whatever_share_is_measured(share):
    overrides = {"methods": ["grpo", "adaptive_entropy"], "training.steps": 2}
    one, other = trainer(**overrides), trainer(share, **overrides)
    for step in (1, 2):
        mine, theirs = one.step(step), other.step(step)
        rest = {name for name in mine.metrics if not name.startswith("change/")}
        assert rest == {name for name in theirs.metrics if not name.startswith("change/")}
        assert {name: str(mine.metrics[name]) for name in rest} == {name: str(theirs.metrics[name]) for name in rest}
    weights = zip(one.policy.parameters, other.policy.parameters, strict=True)
    assert all(torch.equal(a, b) for a, b in weights)
    assert one.config.content_hash == other.config.content_hash


def test_a_share_of_zero_scores_nothing():
    result = trainer(0.0).step(1)
    assert "entropy_after" not in result.rollouts.tokens
    assert not any(name.startswith("change/") for name in result.metrics)


def test_in_bfloat16_before_and_after_come_from_the_same_pass():
    """The sampler's own rounding would otherwise pass for a change of entropy."""
    overrides = {"policy.precision": "bfloat16", "optimiser.learning_rate": 1e-12}
    result = trainer(1.0, **overrides).step(1)
    tokens = result.rollouts.tokens
    assert torch.equal(tokens.entropy_before, tokens.entropy_after)
    assert not torch.equal(tokens.entropy, tokens.entropy_after)
    assert result.metrics["change/entropy"] == result.metrics["change/kl"] == 0


def test_ids_past_the_tokenizers_own_have_an_empty_text():
    t = trainer()
    assert len(t.pieces) == t.policy.model.get_output_embeddings().weight.shape[0]
    layer = t.policy.model.get_output_embeddings()
    wider = torch.nn.Linear(layer.in_features, len(t.pieces) + 3, bias=False)
    t.policy.model.set_output_embeddings(wider)
    assert Trainer(t.config, t.policy).pieces == [*t.pieces, "", "", ""]


def test_responses_given_twice_are_scored_once_and_all_get_their_values():
    t = trainer()
    r = t.step(1).rollouts
    again = torch.cat([torch.arange(len(r.sequences)), torch.tensor([3, 0, 3])])
    doubled = r.select_sequences(again)
    first, place = distinct_responses(doubled)
    assert len(first) <= len(r.sequences) and place[-3:].tolist() == [place[3], place[0], place[3]]
    seen = [(p, x) for p, x in zip(r.sequences.prompt.tolist(), r.sequences.text, strict=True)]
    assert len(first) == len(set(seen))
    plain = score(t.policy, doubled, with_sums=True)
    once = score_in_parts(t.policy, doubled, 4096, with_sums=True)
    for name in ("logp", "entropy", "sum_p2", "sum_p2_logp"):
        torch.testing.assert_close(getattr(once, name), getattr(plain, name).detach(), **ROUNDING)
    hotter = doubled.with_sequences(score_temperature=torch.arange(len(again)) + 1.0)
    assert len(distinct_responses(hotter)[0]) == len(again)
