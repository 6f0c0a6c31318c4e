"""The bundled policy: loadable as any other, small, and as unskilled as the workbench needs it."""

import json
import re

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from workbench.policy.model import bundled_folder, load_policy
from workbench.policy.tokenizer import build_tokenizer, end_mark_ids
from workbench.tasks import TASKS, get_task
from workbench.training.base_report import measure
from workbench.training.pretrain import PretrainConfig

FOLDER = bundled_folder()


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(FOLDER)


@pytest.fixture(scope="module")
def model():
    return AutoModelForCausalLM.from_pretrained(FOLDER).eval()


def test_it_is_a_small_fp32_qwen2_with_its_model_card(model):
    weights = list(FOLDER.glob("*.safetensors"))
    assert sum(path.stat().st_size for path in weights) <= 4 * 2**20
    assert model.config.model_type == "qwen2"
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert (FOLDER / "README.md").exists()
    assert (FOLDER / "report.json").exists()


def test_it_was_made_by_the_recipe_as_it_stands():
    report = json.loads((FOLDER / "report.json").read_text())
    assert PretrainConfig(**report["config"]) == PretrainConfig()


def test_its_tokenizer_is_the_one_built_here(model, tokenizer):
    assert tokenizer.get_vocab() == build_tokenizer().get_vocab()
    assert model.config.vocab_size == len(tokenizer)
    assert model.config.eos_token_id == model.generation_config.eos_token_id == end_mark_ids(tokenizer)
    assert model.config.pad_token_id == model.generation_config.pad_token_id == tokenizer.pad_token_id


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_its_tokenizer_gives_back_every_prompt_with_one_token_per_number(tokenizer, task):
    for prompt in task.evaluation_prompts(50):
        ids = tokenizer(prompt.text)["input_ids"]
        assert tokenizer.decode(ids) == prompt.text
        assert tokenizer.convert_ids_to_tokens(ids) == re.findall(r"[0-9]+|.", prompt.text)


def test_reduce_leaves_much_to_gain_and_entropy_to_lose():
    """Bounds of the project's design, widened by what 64 prompts of 16 responses leave uncertain."""
    numbers = measure(load_policy(), get_task("reduce"), prompts=64, samples=16)
    assert 0.08 <= numbers["pass@1"] <= 0.37
    assert numbers["pass@16"] >= max(0.5, 2.5 * numbers["pass@1"])
    assert numbers["entropy"] >= 0.28
    assert numbers["finished_fraction"] >= 0.95


def test_countdown_is_solved_sometimes():
    numbers = measure(load_policy(), get_task("countdown"), prompts=64, samples=16)
    assert numbers["pass@1"] >= 0.02
    assert numbers["finished_fraction"] >= 0.95
