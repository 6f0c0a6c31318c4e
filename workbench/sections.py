"""Sections of a RunConfig that say how the model is held and trained; `workbench.config` puts them in their place."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class LoraConfig(Section):
    """Low-rank adapters. They have no dropout: the policy that is trained is the one that samples."""

    rank: int = Field(0, ge=0, description="rank of the adapters; 0 trains the weights themselves")
    alpha: float = Field(32.0, gt=0, description="an adapter's product is scaled by alpha / rank")
    targets: tuple[str, ...] = Field(
        ("all-linear",),
        min_length=1,
        description="names of the layers that get an adapter, e.g. [q_proj, v_proj]; 'all-linear': every linear layer "
        "but the head",
    )


class PolicyConfig(Section):
    model: str = Field("bundled", description="'bundled', a local folder, or a Hugging Face hub id of a causal LM")
    precision: Literal["float32", "bfloat16", "float16"] = Field(
        "float32",
        description="dtype of the matrix products; log-probs are float32 always. float16 scales the loss, and skips an "
        "update whose gradient overflows",
    )
    weights: Literal["float32", "bfloat16", "float16"] = Field(
        "float32",
        description="dtype in which the model's weights are kept. Below float32, rounding swallows small updates of "
        "trained weights; adapters are float32 always, so for lora it only halves the frozen part's memory",
    )
    lora: LoraConfig = Field(default_factory=LoraConfig, description="train adapters instead of the weights")
    activation_checkpointing: bool = Field(
        False, description="keep each layer's input alone and compute the layer again in backward: memory for time"
    )
    kernels: bool = Field(
        True,
        description="on an NVIDIA GPU: Triton kernels in the head and, in half precision, FlashAttention over packed "
        "sequences; false: torch alone. Only rounding differs",
    )
    device: str = Field("auto", description="'auto' (CUDA if present), 'cpu', 'cuda', 'cuda:1', …")

    @model_validator(mode="after")
    def _dtypes(self) -> PolicyConfig:
        if self.weights not in ("float32", self.precision):
            raise ValueError(
                f"policy.weights '{self.weights}' needs policy.precision '{self.weights}', for products mix no two "
                "half precisions; set both, or keep the weights in float32"
            )
        if self.weights == "float16" and self.lora.rank == 0:
            raise ValueError(
                "policy.weights 'float16' cannot be trained, since gradients would be rounded to float16 as well; keep "
                "them in float32 (policy.precision 'float16' still computes in it), or set policy.lora.rank"
            )
        return self


class VllmConfig(Section):
    """How vLLM is run; nothing of it changes what is sampled, except for rounding."""

    cache_gib: float = Field(4.0, gt=0, description="GiB of memory for keys and values; the trainer keeps the rest")
    max_sequences: int = Field(512, ge=1, description="responses in progress at a time")
    max_length: int = Field(0, ge=0, description="longest prompt and response together, in tokens; 0: the model's own")
    tensor_parallel: int = Field(1, ge=1, description="devices the sampler's weights are split over")
    server: str = Field(
        "", description="address of a server to sample with, as `python -m workbench serve` starts it; empty: one's own"
    )
    sleep: bool = Field(False, description="give the cache's and the weights' GPU memory back while the trainer works")

    @model_validator(mode="before")
    @classmethod
    def _without_exchange(cls, values: Any) -> Any:
        """A field of runs from before weights went to a server over the network; empty, it said nothing."""
        empty = isinstance(values, dict) and values.get("exchange") == ""
        return {name: value for name, value in values.items() if name != "exchange"} if empty else values


class OptimiserConfig(Section):
    name: Literal["adamw", "sgd"] = Field("adamw", description="AdamW, or plain stochastic gradient descent")
    learning_rate: float = Field(3e-4, gt=0, description="peak learning rate; below 1 for AdamW")
    schedule: Literal["constant", "linear", "cosine"] = Field("constant", description="decay to 0 over the run")
    warmup_updates: int = Field(0, ge=0, description="updates of linear warm-up")
    beta1: float = Field(0.9, ge=0, lt=1, description="AdamW β₁")
    beta2: float = Field(0.999, ge=0, lt=1, description="AdamW β₂")
    momentum: float = Field(0.0, ge=0, lt=1, description="SGD momentum")
    weight_decay: float = Field(
        0.0, ge=0, description="decay of the weights: AdamW's, decoupled; SGD's, in the gradient"
    )
    max_grad_norm: float = Field(1.0, gt=0, description="gradients are scaled down to this L2 norm; .inf: never")

    @model_validator(mode="after")
    def _of_this_optimiser(self) -> OptimiserConfig:
        if self.name == "adamw" and self.learning_rate >= 1:
            raise ValueError("optimiser.learning_rate of AdamW must be below 1; it is a weight's step")
        if self.name == "adamw" and self.momentum:
            raise ValueError("optimiser.momentum is SGD's; AdamW has optimiser.beta1")
        return self
