"""The recipe of the base policy: documents, batches, loss, determinism."""

import json
import math
from itertools import islice

import pytest
import torch
from pydantic import ValidationError

from workbench.policy.model import Policy, load_policy
from workbench.policy.tokenizer import build_tokenizer
from workbench.tasks import TASKS, Solver
from workbench.tasks.base import Prompt
from workbench.training.base_report import measure
from workbench.training.pretrain import (
    PretrainConfig,
    build_model,
    learning_rate_factor,
    pretrain,
    train_step,
)
from workbench.training.pretrain_data import collate, documents, micro_batches, step_documents

TOKENIZER = build_tokenizer()
TINY = PretrainConfig(
    steps=20,
    tokens_per_step=400,
    width=32,
    layers=1,
    heads=2,
    feed_forward=64,
    evaluation_prompts=4,
    evaluation_samples=2,
    mixture={"reduce": 0.5, "countdown": 0.5},
)


def stream(config):
    return documents(config.mixture, config.solver, config.seed, TOKENIZER)


def test_documents_are_whole_and_from_the_training_split():
    for document in islice(stream(PretrainConfig()), 300):
        text = TOKENIZER.decode(document.tokens)
        prompt = TOKENIZER.decode(document.tokens[: document.prompt_length])
        assert text.startswith(prompt)
        assert text.endswith(("#", "!", "?"))
        task = TASKS["reduce" if prompt.endswith("=") else "countdown"]
        assert task.split(Prompt(prompt, task.name, "")) == "train"


def test_micro_batches_keep_every_document_and_share_the_tokens():
    chosen = step_documents(stream(PretrainConfig()), 3000)
    assert 3000 <= sum(len(document.tokens) for document in chosen) < 3200
    parts = micro_batches(chosen, 4)
    assert [document for part in parts for document in part] == chosen
    sizes = [sum(len(document.tokens) for document in part) for part in parts]
    assert max(sizes) - min(sizes) < 200


def test_loss_and_gradient_do_not_depend_on_the_micro_batches():
    chosen = step_documents(stream(TINY), 800)
    results = []
    for count in (1, 3, 50):
        model = build_model(TINY, TOKENIZER)
        loss = train_step(model, chosen, TINY.model_copy(update={"micro_batches": count}))
        results.append((loss, torch.cat([parameter.grad.flatten() for parameter in model.parameters()])))
    for loss, gradient in results[1:]:
        assert loss == pytest.approx(results[0][0], rel=1e-5)
        torch.testing.assert_close(gradient, results[0][1], rtol=1e-3, atol=1e-6)


def test_loss_is_the_weighted_mean_over_the_documents():
    """Against a loop over documents, each alone in its batch."""
    chosen = step_documents(stream(TINY), 200)
    model = build_model(TINY, TOKENIZER)
    total, weight = 0.0, 0.0
    for document in chosen:
        log_probs = model(torch.tensor([document.tokens])).logits[0].log_softmax(-1)
        for position in range(1, len(document.tokens)):
            scale = 1.0 if position >= document.prompt_length else TINY.prompt_weight
            total -= scale * log_probs[position - 1, document.tokens[position]].item()
            weight += scale
    assert train_step(model, chosen, TINY) == pytest.approx(total / weight, rel=1e-5)


def test_collate_pads_on_the_right_without_weight():
    chosen = step_documents(stream(TINY), 300)
    inputs, targets, weights = collate(chosen, 0.25)
    for row, document in enumerate(chosen):
        length = len(document.tokens) - 1
        assert inputs[row, :length].tolist() == document.tokens[:-1]
        assert targets[row, :length].tolist() == document.tokens[1:]
        assert weights[row, length:].sum() == 0
        assert weights[row].sum() == 0.25 * (document.prompt_length - 1) + len(document.tokens) - document.prompt_length


def test_learning_rate_rises_then_falls_to_almost_zero():
    config = PretrainConfig(steps=100, warmup=0.1)
    factors = [learning_rate_factor(step, config) for step in range(100)]
    assert factors[0] == pytest.approx(0.1)
    assert max(factors) == factors[9] == 1.0
    assert factors[9:] == sorted(factors[9:], reverse=True)
    assert 0 < factors[-1] < 0.02


def test_pretraining_lowers_the_loss_and_leaves_a_loadable_policy(tmp_path):
    lines = []
    result = pretrain(TINY, tmp_path, log=lines.append)
    assert result.losses.iloc[-5:].mean() < 0.8 * result.losses.iloc[0]
    again = measure(load_policy(str(tmp_path)), TASKS["reduce"], prompts=4, samples=2)
    assert again == pytest.approx(result.measured.loc["reduce"].to_dict())
    report = json.loads((tmp_path / "report.json").read_text())
    assert PretrainConfig(**report["config"]) == TINY
    assert "| reduce |" in (tmp_path / "README.md").read_text()
    assert any("20/20" in line for line in lines)


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(tmp_path):
    config = TINY.model_copy(update={"steps": 5})
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        pretrain(config.model_copy(update={"seed": seed}), tmp_path / name, log=lambda line: None)
    a, b, c = ((tmp_path / name / "model.safetensors").read_bytes() for name in "abc")
    assert a == b
    assert a != c


def test_measured_entropy_of_an_untrained_policy_is_that_of_its_softmax(tmp_path):
    model = build_model(TINY, TOKENIZER)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()  # all logits 0: the uniform distribution, entropy ln 112
    Policy(model, TOKENIZER).save(tmp_path)
    numbers = measure(load_policy(str(tmp_path)), TASKS["reduce"], prompts=4, samples=4)
    assert numbers["entropy"] == pytest.approx(math.log(112))
    assert numbers["pass@1"] == 0.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mixture": {"reduse": 1.0}}, "reduce"),
        ({"mixture": {"reduce": 0.0}}, "mixture"),
        ({"mixture": {"reduce": -1.0}}, "mixture"),
        ({"steps": 0}, "steps"),
        ({"speed": 1}, "speed"),
    ],
)
def test_impossible_settings_are_refused(change, message):
    with pytest.raises(ValidationError, match=message):
        PretrainConfig(**change)


def test_solver_habits_are_probabilities():
    with pytest.raises(ValidationError, match="slip"):
        Solver(slip=1.5)
