"""The native sampler against exact probabilities and against the packed forward."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from tests.tiny import own_logps, tiny_policy
from workbench.policy import attention
from workbench.policy.packing import pack
from workbench.rollout import NativeEngine, Stream, native
from workbench.rollout.native import draw, nucleus
from workbench.rollout.streams import UniformBlocks

STREAM = Stream(0, 1)
PROMPTS = [torch.tensor([1, 2, 3]), torch.tensor([4]), torch.tensor([5, 6, 7, 8, 9])]


def generate(policy, prompts=PROMPTS, samples=4, temperature=1.0, max_new_tokens=9, stream=STREAM):
    heat = torch.full((len(prompts),), float(temperature))
    return NativeEngine(policy).generate(prompts, samples, heat, max_new_tokens, stream)


def exact_probabilities(policy, prompt, length):
    """Every response of at most `length` tokens (ended by the end token or cut) with its exact probability."""
    vocab, end = policy.model.config.vocab_size, policy.eos_ids[0]
    table = {}
    for n in range(1, length + 1):
        for response in itertools.product(range(vocab), repeat=n):
            if end in response[:-1] or (n < length and response[-1] != end):
                continue
            with torch.no_grad():
                logp, _ = own_logps(policy.model, prompt, torch.tensor(response))
            table[response] = logp.sum().exp().item()
    return table


def test_samples_follow_the_exact_distribution():
    policy = tiny_policy(vocab=5, spread=2.0)
    exact = exact_probabilities(policy, PROMPTS[0], 3)
    assert sum(exact.values()) == pytest.approx(1.0, abs=1e-5)
    n = 20_000
    drawn = generate(policy, [PROMPTS[0]], samples=n, max_new_tokens=3)
    counts = dict.fromkeys(exact, 0)
    for part in drawn.tokens.token.split(drawn.sequences.length.tolist()):
        counts[tuple(part.tolist())] += 1
    expected = np.array([exact[r] * n for r in exact])
    observed = np.array([counts[r] for r in exact])
    common = expected >= 5
    assert common.sum() > 20
    rest = observed[~common].sum(), expected[~common].sum()
    observed, expected = observed[common], expected[common]
    if rest[1] >= 5:
        observed, expected = np.append(observed, rest[0]), np.append(expected, rest[1])
    assert chisquare(observed, expected * observed.sum() / expected.sum()).pvalue > 1e-3


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_sampled_log_probs_are_those_of_the_forward(temperature):
    policy = tiny_policy()
    r = generate(policy, temperature=temperature, samples=8, max_new_tokens=12)
    assert len(set(r.sequences.length.tolist())) > 2, "responses of several lengths, so that some leave the batch early"
    with torch.no_grad():
        again = policy.token_statistics(pack(r), r.broadcast_to_tokens(r.sequences.temperature))
    torch.testing.assert_close(r.tokens.rollout_logp, again.logp, atol=1e-5, rtol=0)
    torch.testing.assert_close(r.tokens.entropy, again.entropy, atol=1e-5, rtol=0)


def test_a_prompts_samples_do_not_depend_on_its_company():
    policy = tiny_policy()
    together = generate(policy)
    for place, prompt in enumerate(PROMPTS):
        alone = generate(policy, [prompt], stream=Stream(0, 1, first_prompt=place))
        mine = together.select_sequences(together.sequences.prompt == place)
        assert mine.tokens.token.tolist() == alone.tokens.token.tolist()


def test_both_attention_kernels_sample_the_same(monkeypatch):
    """On CPU short contexts take plain products, everything else torch's SDPA."""
    policy = tiny_policy()
    for prompts in (PROMPTS, [PROMPTS[0], PROMPTS[0]]):  # of different and of equal length
        products = generate(policy, prompts)
        monkeypatch.setattr(attention, "SHORT_CONTEXT", 0)
        sdpa = generate(policy, prompts)
        monkeypatch.undo()
        assert products.tokens.token.tolist() == sdpa.tokens.token.tolist()
        torch.testing.assert_close(products.tokens.rollout_logp, sdpa.tokens.rollout_logp, atol=1e-5, rtol=0)


def test_streams_differ_by_seed_step_purpose_and_sample():
    policy = tiny_policy()
    streams = [Stream(0, 1), Stream(1, 1), Stream(0, 2), Stream(0, 1, "evaluate/reduce")]
    drawn = [generate(policy, stream=stream).tokens.token.tolist() for stream in streams]
    assert len({tuple(tokens) for tokens in drawn}) == len(streams)
    assert drawn[0] == generate(policy, stream=Stream(0, 1)).tokens.token.tolist()
    first = generate(policy, [PROMPTS[0]], samples=16)
    assert len({tuple(p.tolist()) for p in first.tokens.token.split(first.sequences.length.tolist())}) > 1


def test_ends_and_cuts_are_told_apart():
    r = generate(tiny_policy(), samples=32, max_new_tokens=4)
    last = r.tokens.token[r.sequences.length.cumsum(0) - 1]
    assert torch.equal(r.sequences.finished, last == 12)
    assert (r.sequences.length[~r.sequences.finished] == 4).all()
    assert 0 < r.sequences.finished.sum() < len(r.sequences)


def test_each_prompt_has_its_own_temperature():
    policy, prompts = tiny_policy(), [PROMPTS[0], PROMPTS[0]]
    r = NativeEngine(policy).generate(prompts, 64, torch.tensor([0.05, 3.0]), 5, Stream(0, 1))
    entropy = r.mean_by_sequence(r.tokens.entropy)
    assert entropy[:64].max() < 0.3 < 1.5 < entropy[64:].min()


def test_broken_logits_raise_and_name_the_sample():
    policy = tiny_policy()
    with torch.no_grad():
        policy.model.get_output_embeddings().weight[3] = float("nan")
    with pytest.raises(FloatingPointError, match="prompt 0, sample 0, position 0"):
        generate(policy)


@pytest.mark.parametrize("elements", [1 << 24, 100])
def test_samples_that_share_their_past_are_those_drawn_one_by_one(elements, monkeypatch):
    monkeypatch.setattr(native, "elements_on", lambda device: (elements, elements))
    policy, samples, longest = tiny_policy(), 12, 9
    temperature = torch.tensor([0.4, 0.7, 1.5])[: len(PROMPTS)]
    r = NativeEngine(policy).generate(PROMPTS, samples, temperature, longest, STREAM)
    texts = r.tokens.token.split(r.sequences.length.tolist())
    for number, prompt in enumerate(PROMPTS):
        uniforms = UniformBlocks(replace(STREAM, first_prompt=number), 1, samples)
        drawn = [prompt] * samples
        for position in range(longest):
            for sample, uniform in enumerate(uniforms.at(position, np.arange(samples))):
                if position and drawn[sample][-1] == 12 and len(drawn[sample]) > len(prompt):
                    continue
                with torch.no_grad():
                    logits = policy.model(input_ids=drawn[sample].unsqueeze(0), use_cache=False).logits[0, -1].double()
                cumulative = (logits / temperature[number].item()).softmax(-1).cumsum(-1)
                token = int(torch.searchsorted(cumulative, torch.tensor(uniform)))
                drawn[sample] = torch.cat([drawn[sample], torch.tensor([token])])
        own = texts[number * samples : (number + 1) * samples]
        assert [text.tolist() for text in own] == [text[len(prompt) :].tolist() for text in drawn]
    assert len({(i // samples, *text.tolist()[:2]) for i, text in enumerate(texts)}) < 0.7 * len(texts)  # they do share


def test_draw_reaches_the_first_and_last_token():
    logits = torch.zeros(2, 4)
    token, columns = draw(logits, np.array([0.0, np.nextafter(1.0, 0.0)]), torch.arange(2))
    assert token.tolist() == [0, 3]
    torch.testing.assert_close(columns["entropy"], torch.full((2,), 4.0).log())


def test_the_nucleus_is_the_fewest_likeliest_tokens_that_hold_top_p():
    probs = torch.tensor([[0.1, 0.5, 0.15, 0.25], [0.25, 0.25, 0.25, 0.25], [0.0, 1.0, 0.0, 0.0]])
    assert (nucleus(probs, 0.7) > 0).tolist() == [
        [False, True, False, True],
        [True, True, True, False],
        [False, True, False, False],
    ]
    assert torch.equal(nucleus(probs, 1.0), probs)


def test_a_nucleus_draw_has_the_log_prob_of_the_renormalised_nucleus_and_the_entropy_of_all():
    logits = torch.randn(4000, 6, generator=torch.Generator().manual_seed(0))[:1].repeat(4000, 1)
    p = logits[0].softmax(-1).double()
    kept = nucleus(p.unsqueeze(0), 0.8)[0]
    assert 1 < (kept > 0).sum() < 6
    uniform = (np.arange(4000) + 0.5) / 4000
    token, columns = draw(logits.clone(), uniform, torch.arange(len(logits)), top_p=0.8)
    shares = torch.bincount(token, minlength=6) / 4000
    torch.testing.assert_close(shares.double(), kept / kept.sum(), atol=1e-3, rtol=0)
    torch.testing.assert_close(columns["rollout_logp"].double(), (kept / kept.sum()).log()[token], atol=1e-5, rtol=0)
    assert columns["entropy"][0].item() == pytest.approx(-(p * p.log()).sum().item(), abs=1e-6)


def test_the_expected_discriminator_is_its_definition():
    logits = torch.randn(5, 7, generator=torch.Generator().manual_seed(1))
    p = logits.double().softmax(-1)
    entropy = -(p * p.log()).sum(-1, keepdim=True)
    expected = (p * (p * (entropy + p.log()))).sum(-1)
    _, columns = draw(logits, np.full(5, 0.5), torch.arange(5), discriminator=True)
    torch.testing.assert_close(columns["expected_discriminator"].double(), expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("top_p", [1.0, 0.8])
def test_alternatives_are_the_likeliest_tokens_of_the_distribution_sampled_from(top_p):
    logits = 2 * torch.randn(5, 7, generator=torch.Generator().manual_seed(2))
    kept = nucleus(logits.double().softmax(-1), top_p)
    logp = (kept / kept.sum(-1, keepdim=True)).log()
    branch = torch.tensor([0, 1, 1, 2, 3, 4])
    token, columns = draw(logits.clone(), np.linspace(0, 0.99, 6), branch, top_p, alternatives=4)
    for row, expected in enumerate(logp[branch]):
        order = expected.argsort(descending=True)[:4]
        got = torch.stack([columns[f"top{rank}_logp"][row].double() for rank in range(1, 5)])
        torch.testing.assert_close(got, expected[order], atol=1e-5, rtol=0)
        inside = torch.isfinite(got)
        tokens = torch.stack([columns[f"top{rank}_token"][row] for rank in range(1, 5)])
        assert torch.equal(tokens[inside], order[inside])
        if token[row] in tokens:
            assert columns["rollout_logp"][row] == got[(tokens == token[row]).nonzero()[0]].float()
    assert top_p == 1 or not all(torch.isfinite(columns["top4_logp"]))


def test_keeping_alternatives_changes_no_sample():
    policy, heat = tiny_policy(), torch.full((len(PROMPTS),), 0.7)
    plain = NativeEngine(policy).generate(PROMPTS, 6, heat, 9, STREAM)
    more = NativeEngine(policy).generate(PROMPTS, 6, heat, 9, STREAM, alternatives=2)
    assert set(more.tokens) - set(plain.tokens) == {"top1_token", "top1_logp", "top2_token", "top2_logp"}
    for name in plain.tokens:
        assert torch.equal(plain.tokens[name], more.tokens[name]), name
