"""The policy: a causal LM with its tokenizer and one packed forward that gives log-prob and entropy per token."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from importlib import resources
from importlib.util import find_spec
from pathlib import Path

import torch
import transformers
from peft import PeftModel
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from workbench import ranks
from workbench.policy import adapters, attention
from workbench.policy.checkpointing import checkpoint_layers
from workbench.policy.fused import speed_up_norms
from workbench.policy.gather import gather
from workbench.policy.head import TokenStatistics, fused_head
from workbench.policy.packing import PackedBatch
from workbench.policy.sharding import Sharding
from workbench.policy.tensor_files import read_tensors, write_tensors
from workbench.policy.varlen import VarlenAttention
from workbench.sections import PolicyConfig

transformers.utils.logging.disable_progress_bar()  # loading and saving happen many times a run; a run prints lines

BUNDLED = "bundled"
WEIGHTS = "model.safetensors"
"""What transformers calls the weights of a model in one file."""
HALF = (torch.bfloat16, torch.float16)
SELF_CHECK_TOLERANCE = 2e-3
"""Largest |log-prob| gap allowed between this module's forward and the model's own, relative to the largest logit:
far above fp32 rounding, far below what a missed soft-cap, scale or attention rule changes."""


class Policy:
    """A causal LM on one device, or divided among the devices of all ranks.

    `model` is any transformers causal LM that supports the attention interface; `precision` ("float32", "bfloat16" or
    "float16") is the dtype of the matrix products. The head works in fp32; on a GPU with `kernels`
    its products are in `precision` as well, summed in fp32. `adapted` is peft's view of the same model where it has
    adapters; then they alone are trained.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        precision: str = "float32",
        adapted: PeftModel | None = None,
    ):
        self.model, self.tokenizer, self.adapted = model.eval(), tokenizer, adapted
        speed_up_norms(model)
        self.precision = getattr(torch, precision)
        self.device = model.device
        self.eos_ids = _eos_ids(model, tokenizer)
        self.sharding: Sharding | None = None
        self.kernels = True

    @property
    def kernel_dtype(self) -> torch.dtype | None:
        """The dtype of the head's products where Triton kernels take it over; None where torch does it, in fp32."""
        found = self.device.type == "cuda" and find_spec("triton") is not None
        return self.precision if self.kernels and found else None

    def check_kernels(self) -> None:
        """Compare the head's Triton kernels, where they are used, with torch on this device. Raises `ValueError`."""
        if self.kernel_dtype is not None:
            from workbench.policy import head_kernels

            vocabulary = len(self.model.get_output_embeddings().weight)
            head_kernels.check(self.device, vocabulary, self.kernel_dtype)

    def divide(self, device: str) -> None:
        """Divide the weights among all ranks; this one's part goes to `device`. Weights are whole only inside `within`
        and `whole`, and `parameters` are new objects."""
        self.sharding, self.device = Sharding(self.model, device), torch.device(device)
        self.check_kernels()

    def within(self, call: Callable):
        """`call()`, which may use the weights: one forward pass. On many ranks all of them have to make it."""
        return call() if self.sharding is None else self.sharding.within(call)

    def whole(self) -> AbstractContextManager[None]:
        """Inside, this rank may use the weights without the others (and without gradients)."""
        return nullcontext() if self.sharding is None else self.sharding.whole()

    @property
    def parameters(self) -> list[torch.nn.Parameter]:
        return [p for p in self.model.parameters() if p.requires_grad]

    def hidden(self, input_ids: Tensor, position_ids: Tensor, context) -> Tensor:
        """Last hidden states [B, T, D] of input_ids [B, T]; `context` decides what attends to what."""
        with torch.autocast(self.device.type, self.precision, enabled=self.precision in HALF):
            decoder = self.model.get_decoder()
            output = decoder(input_ids=input_ids, position_ids=position_ids, use_cache=False, attention_context=context)
        return output.last_hidden_state

    def head(self, hidden: Tensor, target: Tensor, temperature: Tensor, with_sums: bool = False) -> TokenStatistics:
        """hidden [N, D], target [N], temperature [N] -> per-token statistics [N]."""
        layer = self.model.get_output_embeddings()
        inputs = (layer.weight, target, temperature, layer.bias)
        if self.kernel_dtype is None:
            return fused_head(hidden, *inputs, with_sums=with_sums)
        from workbench.policy import head_kernels  # brings triton

        return head_kernels.kernel_head(hidden.to(self.kernel_dtype), *inputs, with_sums=with_sums)

    def logits(self, hidden: Tensor) -> Tensor:
        """fp32 logits [N, V] of hidden [N, D], at temperature 1."""
        layer, dtype = self.model.get_output_embeddings(), self.kernel_dtype
        if dtype is not None:
            from workbench.policy import head_kernels

            return head_kernels.logits(hidden.to(dtype), layer.weight.to(dtype), layer.bias)
        bias = None if layer.bias is None else layer.bias.float()
        return torch.nn.functional.linear(hidden.float(), layer.weight.float(), bias)

    def response_hidden(self, batch: PackedBatch) -> Tensor:
        """Last hidden states [N, D] that predict the N response tokens of a packed batch."""
        flash = self.kernel_dtype in HALF
        context = VarlenAttention(batch) if flash else attention.PackedAttention(batch, self.precision)
        hidden = self.hidden(batch.input_ids.unsqueeze(0), batch.position_ids.unsqueeze(0), context)
        return gather(hidden.squeeze(0), batch.predict_row)

    def token_statistics(self, batch: PackedBatch, temperature: Tensor, with_sums: bool = False) -> TokenStatistics:
        """Log-prob and entropy (nats) of the N response tokens of a packed batch at `temperature` [N]."""

        def columns() -> dict[str, Tensor]:
            return self.head(self.response_hidden(batch), batch.target, temperature, with_sums).columns()

        return TokenStatistics(**self.within(columns))

    def encode(self, text: str) -> Tensor:
        """Token ids [n] int64 of a prompt, with no special tokens added. Raises `ValueError` if there are none."""
        ids = self.tokenizer.encode(text, add_special_tokens=False)
        if not ids:
            raise ValueError(f"the policy's tokenizer has no token for any part of the prompt {text!r}")
        return torch.tensor(ids, dtype=torch.int64, device=self.device)

    def unread_share(self, texts: Iterable[str]) -> float:
        """Share of the visible characters of `texts` that their tokens do not give back. Raises as `encode` does."""
        lost = total = 0
        for text in texts:
            given = Counter("".join(text.split()))
            back = self.tokenizer.decode(self.encode(text), clean_up_tokenization_spaces=False)
            lost += (given - Counter("".join(back.split()))).total()
            total += given.total()
        return lost / max(total, 1)

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint holds, by its names there: the adapters where there are some, else the weights, of tied
        ones one. Written to in place, they change the policy."""
        if self.adapted is not None:
            return adapters.adapter_tensors(self.adapted)
        own = dict(self.model.named_parameters())
        tied = dict(self.model.named_parameters(remove_duplicate=False)).keys() - own.keys()
        return {name: tensor for name, tensor in self.model.state_dict().items() if name not in tied}

    def save(self, folder: Path) -> None:
        """Write a normal Hugging Face folder (safetensors and tokenizer): of the adapters where there are some. All
        ranks do it together."""
        with ranks.as_one():
            if ranks.is_first():
                folder.mkdir(parents=True, exist_ok=True)
        write_tensors(folder / self._file, self.tensors())
        with ranks.as_one():
            if ranks.is_first():
                self._describe(folder)

    def _describe(self, folder: Path) -> None:
        self.tokenizer.save_pretrained(folder)
        if self.adapted is not None:
            adapters.save_description(self.adapted, folder)
            return
        self.model.config.save_pretrained(folder)
        if self.model.generation_config is not None:
            self.model.generation_config.save_pretrained(folder)

    def restore(self, folder: Path) -> None:
        """Take the weights, or the adapters, that `save` wrote to `folder`. Raises `ValueError` if they do not fit."""
        read_tensors(folder / self._file, self.tensors())

    @property
    def _file(self) -> str:
        return WEIGHTS if self.adapted is None else adapters.WEIGHTS

    def without_adapters(self) -> Policy:
        """The same model with its adapters off: the policy that training started from, at no memory of its own."""
        return _BasePolicy(self)


class _BasePolicy(Policy):
    def __init__(self, policy: Policy):
        if policy.adapted is None:
            raise ValueError("a policy without adapters has none to switch off; load the reference apart")
        self.__dict__ = policy.__dict__  # whatever becomes of the policy, dividing it included

    def hidden(self, input_ids: Tensor, position_ids: Tensor, context) -> Tensor:
        # Switching adapters off marks them as needing no gradient for the while; graphs made before are not touched.
        with self.adapted.disable_adapter():
            return super().hidden(input_ids, position_ids, context)


def policy_from(config: PolicyConfig, device: str, seed: int) -> Policy:
    """The policy a run starts from: loaded, with new adapters (drawn by `seed`) and checkpointing as configured."""
    return load_policy(config.model, device, config.precision, config=config, seed=seed)


def load_policy(
    name: str = BUNDLED,
    device: str = "cpu",
    precision: str = "float32",
    *,
    config: PolicyConfig | None = None,
    seed: int = 0,
) -> Policy:
    """Load `name`: "bundled", a local folder (of adapters, too) or a Hugging Face hub id. Safetensors only.

    `config` adds adapters, the weights' dtype and checkpointing. Raises `ValueError` for a model whose attention or
    head this workbench would compute differently from the model.
    """
    config = config or PolicyConfig()
    base = adapters.base_of(Path(name))
    model, tokenizer = _load(base or name, getattr(torch, config.weights))
    adapted = None
    if base is not None:
        adapted = adapters.load_adapters(model, Path(name))
    elif config.lora.rank:
        adapted = adapters.add_adapters(model, config.lora, name, seed)
    if config.activation_checkpointing:
        checkpoint_layers(model)
    policy = Policy(model.to(device), tokenizer, precision, adapted)
    policy.kernels = config.kernels
    _refuse_sliding_window(model, name)
    policy.check_kernels()
    _self_check(policy, name)
    return policy


def _load(name: str, weights: torch.dtype) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    source = bundled_folder() if name == BUNDLED else name
    try:
        tokenizer = AutoTokenizer.from_pretrained(source)
        model = AutoModelForCausalLM.from_pretrained(
            source, attn_implementation=attention.NAME, dtype=weights, use_safetensors=True
        )
    except OSError as error:
        raise ValueError(
            f"policy.model '{name}' could not be loaded: give 'bundled', a folder with safetensors, or a hub id "
            f"that can be reached ({str(error).splitlines()[0]})"
        ) from error
    return model, tokenizer


def bundled_folder() -> Path:
    """Folder of the policy that ships with the package."""
    return Path(str(resources.files("workbench.policy"))) / BUNDLED


def _eos_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    ids = model.generation_config.eos_token_id
    if ids is None:
        ids = tokenizer.eos_token_id
    if ids is None:
        raise ValueError("the policy has no end-of-sequence token; set eos_token_id in its generation_config.json")
    return tuple(ids) if isinstance(ids, list | tuple) else (ids,)


def _refuse_sliding_window(model: PreTrainedModel, name: str) -> None:
    config = model.config.get_text_config()
    kinds = getattr(config, "layer_types", None)
    if "sliding_attention" in (kinds or ()) or (kinds is None and getattr(config, "sliding_window", None)):
        raise ValueError(f"policy.model '{name}' uses sliding-window attention, which is not supported yet")


@torch.no_grad()
def _self_check(policy: Policy, name: str) -> None:
    """Compare the packed forward with the model's own logits on a short probe; a silent difference would void a run."""
    length = 8
    ids = torch.arange(length, device=policy.device) % policy.model.config.get_text_config().vocab_size
    own = policy.model(input_ids=ids.unsqueeze(0), use_cache=False).logits[0, 3:-1].float().log_softmax(-1)
    one = torch.ones(1, dtype=torch.int64, device=policy.device)
    batch = PackedBatch(
        input_ids=ids[:-1],
        position_ids=torch.arange(length - 1, device=policy.device),
        prompt_lengths=4 * one,
        response_lengths=3 * one,
        prompt_of=0 * one,
        predict_row=torch.arange(3, length - 1, device=policy.device),
        target=ids[4:],
    )
    packed = policy.token_statistics(batch, torch.ones(length - 4, device=policy.device)).logp
    gap = (packed - own.gather(1, ids[4:, None]).squeeze(1)).abs().max().item()
    slack = 1.0 if policy.precision == torch.float32 else 20.0
    if not gap <= SELF_CHECK_TOLERANCE * slack * max(1.0, own.abs().max().item()):
        raise ValueError(
            f"policy.model '{name}' computes its logits in a way the workbench does not reproduce (log-probs differ by "
            f"{gap:.3g}); its architecture is not supported"
        )
