"""LoRA: low-rank adapters on a frozen model, added, saved and loaded by peft; never merged into the weights.

Merging into weights of half precision and taking out again moves the weights a little each time; so samplers other than
the native one receive the adapters themselves, and the reference policy is the same model with its adapters off.
"""

from __future__ import annotations

import copy
from pathlib import Path

import peft
import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedModel

from workbench.sections import LoraConfig

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def add_adapters(model: PreTrainedModel, config: LoraConfig, base: str, seed: int) -> peft.PeftModel:
    """Put fp32 adapters into `model`, in place, and freeze the rest; `base` is the name the checkpoint will refer to.

    A starts random, by `seed`, and B at zero, so the policy is unchanged. Raises `ValueError` if there is no such layer
    or it is the output layer, which the fused head reads without its adapter.
    """
    targets = "all-linear" if config.targets == ("all-linear",) else list(config.targets)
    settings = peft.LoraConfig(
        r=config.rank, lora_alpha=config.alpha, target_modules=targets, lora_dropout=0.0, bias="none"
    )
    settings.task_type = peft.TaskType.CAUSAL_LM
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            adapted = peft.get_peft_model(model, settings)
    except ValueError as error:
        raise ValueError(f"policy.lora.targets {list(config.targets)}: {str(error).splitlines()[0]}") from error
    return _checked(adapted, base)


def load_adapters(model: PreTrainedModel, folder: Path) -> peft.PeftModel:
    """Put the adapters saved in `folder` into `model`, in place, trainable."""
    base = peft.PeftConfig.from_pretrained(str(folder)).base_model_name_or_path
    return _checked(peft.PeftModel.from_pretrained(model, str(folder), is_trainable=True), base)


def base_of(folder: Path) -> str | None:
    """Name of the model that the adapters in `folder` belong to; None if there are none."""
    if not (folder / CONFIG).is_file():
        return None
    return peft.PeftConfig.from_pretrained(str(folder)).base_model_name_or_path


def adapter_tensors(adapted: peft.PeftModel) -> dict[str, Tensor]:
    """The adapters by the names they have on disk; views of what is trained, so reading them changes nothing.

    Divided among ranks, they are whole within `Policy.whole`; `state_dict` would divide them again.
    """
    held = {name: parameter.detach() for name, parameter in adapted.named_parameters()}
    return peft.get_peft_model_state_dict(adapted, state_dict=held, save_embedding_layers=False)


def save_description(adapted: peft.PeftModel, folder: Path) -> None:
    """`adapter_config.json`, as peft and vLLM read it beside `adapter_model.safetensors`."""
    config = copy.copy(adapted.peft_config["default"])
    config.inference_mode = True
    config.save_pretrained(str(folder))


def save_adapters(adapted: peft.PeftModel, folder: Path) -> None:
    """Description and adapters, by this process alone, which must hold all of them."""
    save_description(adapted, folder)
    save_file({name: tensor.contiguous() for name, tensor in adapter_tensors(adapted).items()}, folder / WEIGHTS)


def _checked(adapted: peft.PeftModel, base: str) -> peft.PeftModel:
    if isinstance(adapted.get_base_model().get_output_embeddings(), BaseTunerLayer):
        raise ValueError("policy.lora.targets names the output layer, which takes no adapter here; leave it out")
    adapted.peft_config["default"].base_model_name_or_path = base
    adapted.peft_config["default"].revision = None
    return adapted
