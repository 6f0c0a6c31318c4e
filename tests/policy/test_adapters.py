"""LoRA: adapters on a frozen base, off for the reference, saved and resumed as adapters; and the dtypes of a policy."""

import pytest
import torch

from tests.tiny import own_logps, tiny_model, tiny_tokenizer
from workbench.config import make_config
from workbench.policy.adapters import adapter_tensors
from workbench.policy.model import load_policy, policy_from
from workbench.policy.packing import pack
from workbench.rollout import NativeEngine, Stream
from workbench.sections import PolicyConfig

PROMPTS = [torch.tensor([1, 2, 3]), torch.tensor([4, 5])]


def lora(**fields):
    return PolicyConfig(lora={"rank": 4, "alpha": 8.0, **fields})


@pytest.fixture
def folder(tmp_path):
    tiny_model().save_pretrained(tmp_path / "base")
    tiny_tokenizer().save_pretrained(tmp_path / "base")
    return tmp_path / "base"


def adapted_policy(folder, seed=0, config=None):
    return policy_from((config or lora()).model_copy(update={"model": str(folder)}), "cpu", seed)


def move_adapters(policy, seed=0):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in policy.parameters:
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.3)


def sample(policy):
    return NativeEngine(policy).generate(PROMPTS, 4, torch.ones(2), 9, Stream(0, 1))


def logps(policy, rollouts):
    return policy.token_statistics(pack(rollouts), torch.ones(len(rollouts.tokens))).logp


def base_bytes(policy):
    return {name: p.detach().clone() for name, p in policy.model.named_parameters() if "lora_" not in name}


def test_adapters_start_as_the_base_policy_and_alone_are_trained(folder):
    policy, base = adapted_policy(folder), load_policy(str(folder))
    r = sample(base)
    torch.testing.assert_close(logps(policy, r), logps(base, r), rtol=0, atol=1e-6)
    trained = {name for name, p in policy.model.named_parameters() if p.requires_grad}
    assert len(trained) == 2 * 7 * 2 and all("lora_" in name for name in trained)  # A and B, 7 layers in each of 2
    assert all(p.dtype == torch.float32 for p in policy.parameters)


def test_the_seed_draws_the_adapters_and_nothing_else(folder):
    torch.manual_seed(5)
    state = torch.get_rng_state()
    one, same, other = (adapter_tensors(adapted_policy(folder, seed).adapted) for seed in (1, 1, 2))
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)


def test_sampling_training_forward_and_the_merged_model_agree(folder):
    policy = adapted_policy(folder)
    move_adapters(policy)
    r = sample(policy)
    torch.testing.assert_close(logps(policy, r), r.tokens.rollout_logp, rtol=1e-4, atol=1e-4)
    merged = adapted_policy(folder)
    move_adapters(merged)
    model = merged.adapted.merge_and_unload()
    parts = r.tokens.token.split(r.sequences.length.tolist())
    oracle = [own_logps(model, r.prompts[p], y)[0] for p, y in zip(r.sequences.prompt.tolist(), parts, strict=True)]
    torch.testing.assert_close(logps(policy, r).double(), torch.cat(oracle), rtol=1e-4, atol=1e-4)


def test_the_reference_is_the_model_with_its_adapters_off(folder):
    policy, base = adapted_policy(folder), load_policy(str(folder))
    r = sample(base)
    move_adapters(policy)
    now = logps(policy, r)
    with torch.no_grad():
        off = logps(policy.without_adapters(), r)
    torch.testing.assert_close(off, logps(base, r), rtol=0, atol=1e-6)
    assert (now - off).abs().max() > 0.01
    now.sum().backward()  # a graph made before the reference was asked is whole
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in policy.parameters)
    assert torch.equal(logps(policy, r), now)


def test_a_thousand_sync_cycles_leave_the_base_bit_identical(folder):
    """What every step does to the model around an update: adapters off and on for the reference, adapters read out
    for a sampler, adapters moved."""
    policy = adapted_policy(folder)
    before = base_bytes(policy)
    reference, ids = policy.without_adapters(), torch.tensor([[1, 2, 3]])
    for cycle in range(1000):
        with torch.no_grad():
            if cycle % 100 == 0:
                reference.hidden(ids, torch.arange(3)[None], None)
            sent = {name: tensor.to(torch.bfloat16) for name, tensor in adapter_tensors(policy.adapted).items()}
            for parameter in policy.parameters:
                parameter.mul_(0.999)
    assert len(sent) == len(policy.parameters)
    after = base_bytes(policy)
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)


def test_adapters_are_saved_as_such_and_load_like_any_policy(folder, tmp_path):
    policy = adapted_policy(folder)
    move_adapters(policy)
    policy.save(tmp_path / "saved")
    assert not list((tmp_path / "saved").glob("model*.safetensors"))
    r = sample(policy)
    assert torch.equal(logps(load_policy(str(tmp_path / "saved")), r), logps(policy, r))
    fresh = adapted_policy(folder, seed=9)
    fresh.restore(tmp_path / "saved")
    assert torch.equal(logps(fresh, r), logps(policy, r))
    wrong = adapted_policy(folder, config=lora(targets=("q_proj",)))
    with pytest.raises(ValueError, match="does not fit"):
        wrong.restore(tmp_path / "saved")


@pytest.mark.parametrize(("targets", "message"), [(("nothing",), "targets"), (("lm_head",), "output layer")])
def test_targets_that_cannot_be(folder, targets, message):
    with pytest.raises(ValueError, match=message):
        adapted_policy(folder, config=lora(targets=targets))


def test_checkpointing_changes_no_bit_of_loss_or_gradient(folder):
    def gradient(**fields):
        config = PolicyConfig(model=str(folder), **fields)
        policy = policy_from(config, "cpu", 0)
        r = sample(policy)
        value = logps(policy, r).sum()
        value.backward()
        return [value.detach(), *(p.grad for p in policy.parameters)]

    calls = []
    plain, again = gradient(), gradient(activation_checkpointing=True)
    assert all(torch.equal(a, b) for a, b in zip(plain, again, strict=True))
    policy = policy_from(PolicyConfig(model=str(folder), activation_checkpointing=True), "cpu", 0)
    policy.model.get_decoder().layers[0].self_attn.register_forward_pre_hook(lambda *_: calls.append(1))
    logps(policy, sample(load_policy(str(folder)))).sum().backward()
    assert len(calls) == 2  # once forward, once more in backward


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"weights": "bfloat16"}, "needs policy.precision 'bfloat16'"),
        ({"weights": "float16", "precision": "float16"}, "cannot be trained"),
        ({"weights": "bfloat16", "precision": "float16"}, "needs policy.precision"),
    ],
)
def test_dtypes_that_do_not_go_together(fields, message):
    with pytest.raises(ValueError, match=message):
        make_config({"policy": fields})


@pytest.mark.parametrize(
    "fields",
    [
        {"precision": "float16"},
        {"precision": "bfloat16", "weights": "bfloat16"},
        {"precision": "bfloat16", "weights": "bfloat16", "lora": {"rank": 2}},
        {"precision": "float16", "weights": "float16", "lora": {"rank": 2}},
    ],
    ids=str,
)
def test_half_precision_stays_near_float32_and_log_probs_are_float32(folder, fields):
    policy = policy_from(PolicyConfig(model=str(folder), **fields), "cpu", 0)
    r = sample(load_policy(str(folder)))
    now = logps(policy, r)
    assert now.dtype == torch.float32
    gap = (now - r.tokens.rollout_logp).abs()
    assert 0 < gap.mean() < 0.15
    now.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in policy.parameters)
    assert all(p.dtype == torch.float32 for p in policy.parameters if "lora" in fields)
