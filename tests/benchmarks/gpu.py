"""What the trainer does on a GPU, as one table: correctness, head, update, sampling, and a run that learns.

    python -m tests.benchmarks.gpu [--only head,update,…] [--small]

Needs torch, transformers, peft and the other packages workbench imports; no vLLM and no network: models are built from
their published shapes with random weights. What does not fit the device's memory is said and left out. `--small` takes
toy shapes on any device, CPU included, to try the script out.

Update: full fine-tuning and LoRA on packed responses of 512 to 1,536 tokens, fp32 master weights, products in bfloat16;
model FLOPs are 6 per weight and token (4 where the weights are frozen) and those of attention; MFU is their share of
989 TFLOP/s, the dense bf16 peak of an H100 or H200. Head: forward and backward at the update's shape.
"""

from __future__ import annotations

import argparse
import gc
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch.nn.functional import cross_entropy, linear
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen2Config

from workbench.config import METHODS, ObjectiveConfig
from workbench.methods import Composition
from workbench.policy import adapters
from workbench.policy.attention import NAME
from workbench.policy.head import fused_head
from workbench.policy.model import Policy, bundled_folder
from workbench.rollout import NativeEngine, Stream
from workbench.sections import LoraConfig
from workbench.tables import Rollouts, Table, token_index
from workbench.training.update import accumulate_gradient

PEAK = 989e12
BUDGET = 32_768
"""Tokens per micro-batch."""


@dataclass(frozen=True)
class Shape:
    """A Qwen2.5 model: width, inner width, layers, heads, key-value heads, vocabulary, tied head."""

    width: int
    inner: int
    layers: int
    heads: int
    kv_heads: int
    vocabulary: int
    tied: bool
    gib: int
    """memory for fp32 weights, gradients and AdamW's moments, and for activations"""

    def model(self, device: str, dtype: torch.dtype):
        config = Qwen2Config(
            vocab_size=self.vocabulary, hidden_size=self.width, intermediate_size=self.inner,
            num_hidden_layers=self.layers, num_attention_heads=self.heads, num_key_value_heads=self.kv_heads,
            tie_word_embeddings=self.tied, max_position_embeddings=32_768, eos_token_id=self.vocabulary - 1,
        )  # fmt: skip
        with torch.device(device):
            model = AutoModelForCausalLM.from_config(config, attn_implementation=NAME, dtype=dtype)
        model.generation_config.eos_token_id = self.vocabulary - 1
        return model

    def flops(self, tokens: int, context: float, passes: int) -> float:
        """Model FLOPs of `passes` (2 forward, 4 frozen, 6 full) over tokens that see `context` others on average."""
        head_width = self.width // self.heads
        each = self.width * (2 * self.heads + 2 * self.kv_heads) * head_width + 3 * self.width * self.inner
        weights = self.layers * each + self.width * self.vocabulary
        return tokens * (passes * weights + passes * 2 * self.layers * self.width * context)


SHAPES = {
    "1.5B": Shape(1536, 8960, 28, 12, 2, 151_936, True, gib=75),
    "7B": Shape(3584, 18_944, 28, 28, 4, 152_064, False, gib=150),
}
SMALL = {"toy": Shape(64, 128, 2, 4, 2, 1000, True, gib=0)}


def policy_of(shape: Shape, device: str, lora: bool = False) -> Policy:
    model, adapted = shape.model(device, torch.bfloat16 if lora else torch.float32), None
    if lora:
        adapted = adapters.add_adapters(model, LoraConfig(rank=32), "random", seed=0)
    return Policy(model.to(device), AutoTokenizer.from_pretrained(bundled_folder()), "bfloat16", adapted)


def rollouts(shape: Shape, device: str, prompts: int, samples: int, mean: int, prompt: int = 128) -> Rollouts:
    """Made-up responses of 0.5 to 1.5 times `mean` tokens, ready for an update."""
    generator = torch.Generator().manual_seed(0)
    count = prompts * samples
    length = torch.randint(mean // 2, mean * 3 // 2 + 1, (count,), generator=generator)
    group = torch.arange(prompts).repeat_interleave(samples)
    sequence, position = token_index(length)
    total, one = len(sequence), torch.ones(count)
    advantage = torch.where(torch.arange(count) % 2 == 0, 1.0, -1.0)
    tokens = Table(
        sequence=sequence, position=position, token=torch.randint(shape.vocabulary - 1, (total,), generator=generator),
        old_logp=torch.full((total,), -11.9), rollout_logp=torch.full((total,), -11.9),
        entropy=torch.full((total,), 11.9), advantage=advantage[sequence],
    )  # fmt: skip
    sequences = Table(
        prompt=group, sample=torch.arange(count) % samples, group=group, length=length, temperature=one,
        score_temperature=one, finished=one.bool(), reward=(advantage > 0).float(), advantage=advantage,
    )  # fmt: skip
    ids = [torch.randint(shape.vocabulary - 1, (prompt,), generator=generator) for _ in range(prompts)]
    moved = (Table(**{name: column.to(device) for name, column in table.items()}) for table in (sequences, tokens))
    return Rollouts([x.to(device) for x in ids], *moved)


def measured(run: Callable[[], object], device: str, repeats: int = 3) -> tuple[float, float]:
    """Median seconds of `run`, after one that warms up, and the GiB it has in use at most, what was there included."""
    times = []
    for _ in range(repeats + 1):
        wait(device)
        start = time.perf_counter()
        run()
        wait(device)
        times.append(time.perf_counter() - start)
    peak = torch.cuda.max_memory_allocated() / 2**30 if device == "cuda" else float("nan")
    return sorted(times[1:])[repeats // 2], peak


def wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def correctness(shapes: dict[str, Shape], device: str) -> Iterator[str]:
    """Gaps of the kernels from torch's result, and of the entropy from fp64, at the largest vocabulary."""
    from workbench.policy import head_kernels

    vocabulary = max(shape.vocabulary for shape in shapes.values())
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        gap = head_kernels.check(torch.device(device), vocabulary, dtype)
        yield f"kernels, {dtype}: largest gap from torch {gap:.1e}"
    noise = 2 * torch.randn(16, vocabulary, generator=torch.Generator(device).manual_seed(0), device=device)
    top, one = torch.zeros(16, dtype=torch.int64, device=device), torch.ones(16, device=device)
    for height in (0.0, 18.0, 22.0, 27.0):
        logits = noise.clone()
        logits[:, 0] = height
        wide = logits.double().log_softmax(-1)
        truth = -(wide.exp() * wide).sum(-1)
        gap = (head_kernels._statistics(logits, one, top, False)[1].double() / truth - 1).abs().max()
        yield f"entropy {truth.mean().item():.2g}: largest relative gap from fp64 {gap:.1e}"


def kernels(hidden, weight, target) -> None:
    from workbench.policy.head_kernels import kernel_head

    out = kernel_head(hidden, weight, target, torch.ones_like(target, dtype=torch.float32))
    (out.logp.sum() + 0.01 * out.entropy.sum()).backward()


def kernels_without_entropy(hidden, weight, target) -> None:
    from workbench.policy.head_kernels import kernel_head

    kernel_head(hidden, weight, target, torch.ones_like(target, dtype=torch.float32)).logp.sum().backward()


def torch_in_fp32(hidden, weight, target) -> None:
    out = fused_head(hidden.float(), weight, target, torch.ones_like(target, dtype=torch.float32))
    (out.logp.sum() + 0.01 * out.entropy.sum()).backward()


def naive(hidden, weight, target) -> torch.Tensor:
    logp = linear(hidden, weight.to(hidden.dtype)).float().log_softmax(-1)
    return logp.gather(1, target[:, None]).sum() - 0.01 * (logp.exp() * logp).sum()


def plain(hidden, weight, target) -> None:
    naive(hidden, weight, target).backward()


compiled = torch.compile(naive, dynamic=True)


def compiled_chunks(hidden, weight, target) -> None:
    for part in torch.arange(len(target), device=target.device).split(1024):
        compiled(hidden[part], weight, target[part]).backward()


def log_prob_in_chunks(hidden, weight, target) -> None:
    """What Liger does, in torch: a chunk's gradient at once, no entropy."""
    for part in torch.arange(len(target), device=target.device).split(1024):
        logits = linear(hidden[part], weight.to(hidden.dtype)).float()
        cross_entropy(logits, target[part], reduction="sum").backward()


HEADS = {
    "kernels": kernels,
    "kernels, log-prob alone": kernels_without_entropy,
    "torch, fp32 products": torch_in_fp32,
    "plain logits": plain,
    "torch.compile, chunks of 1,024": compiled_chunks,
    "log-prob alone, chunks of 1,024": log_prob_in_chunks,
}


def head(shapes: dict[str, Shape], device: str) -> Iterator[str]:
    """Forward and backward of log-prob and entropy of 8,192 tokens by several heads."""
    for name, shape in shapes.items():
        count = 8192 if shape.vocabulary > 10_000 else 256
        hidden = torch.randn(count, shape.width, device=device, dtype=torch.bfloat16, requires_grad=True)
        weight = (torch.randn(shape.vocabulary, shape.width, device=device) * 0.02).requires_grad_()
        inputs = (hidden, weight, torch.randint(shape.vocabulary, (count,), device=device))
        for kind, run in HEADS.items():
            yield tried(f"head {name}, {count:,} tokens, {kind}", partial(per_head, run, inputs, device))


def per_head(run: Callable, inputs: tuple, device: str) -> str:
    fresh(device)
    before = torch.cuda.memory_allocated() / 2**30 if device == "cuda" else float("nan")
    seconds, peak = measured(partial(run, *inputs), device)
    share = 6 * inputs[0].numel() * len(inputs[1]) / seconds / PEAK
    return f"{seconds * 1e3:,.1f} ms, {peak - before:.2f} GiB more than inputs, {share:.0%} of peak"


def update(shapes: dict[str, Shape], device: str) -> Iterator[str]:
    """One update of packed responses, full fine-tuning and LoRA, with entropy in the loss and without; also with
    torch.compile on the blocks without attention, which the trainer does not use."""
    for name, shape in shapes.items():
        for kind in ("full", "LoRA", "full, MLPs by torch.compile"):
            yield tried(f"update {name}, {kind}", partial(per_update, shape, device, kind))


def per_update(shape: Shape, device: str, kind: str) -> str:
    lora = kind == "LoRA"
    needed = shape.gib if not lora else shape.gib / 3
    if device == "cuda" and needed * 2**30 > torch.cuda.get_device_properties(0).total_memory:
        return f"needs about {needed:.0f} GiB: left out"
    fresh(device)
    policy = policy_of(shape, device, lora)
    if "compile" in kind:
        for layer in policy.model.get_decoder().layers:
            layer.mlp.compile(dynamic=True)
    mean, groups = (1024, 8) if shape.vocabulary > 10_000 else (24, 2)
    batch = rollouts(shape, device, groups, 8, mean)
    optimiser = torch.optim.AdamW(policy.parameters, lr=1e-6, fused=device == "cuda")
    said = []
    for label, methods in (("", ("grpo",)), (" with entropy in the loss", ("grpo", "entropy_bonus"))):

        def step(methods=methods):
            built = Composition([METHODS[method]() for method in methods])
            accumulate_gradient(policy, batch, built, ObjectiveConfig(), BUDGET, 2 * mean)
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)

        seconds, peak = measured(step, device)
        tokens = len(batch.tokens) + sum(map(len, batch.prompts))
        mfu = shape.flops(tokens, mean / 2 + 128, 4 if lora else 6) / seconds / PEAK
        said.append(f"{tokens / seconds:,.0f} tokens/s{label}, {mfu:.1%} MFU, {peak:.1f} GiB")
    return "; ".join(said)


def sampling(shapes: dict[str, Shape], device: str) -> Iterator[str]:
    """The native engine: 64 prompts × 8 responses."""
    for name, shape in shapes.items():
        yield tried(f"native sampling {name}", partial(per_sampling, shape, device))


def per_sampling(shape: Shape, device: str) -> str:
    fresh(device)
    policy = policy_of(shape, device, lora=True)  # weights in bfloat16
    prompts, samples, longest = (64, 8, 256) if shape.vocabulary > 10_000 else (4, 4, 16)
    ids = [torch.randint(shape.vocabulary - 1, (128,), device=device) for _ in range(prompts)]
    engine = NativeEngine(policy)
    seconds, peak = measured(
        lambda: engine.generate(ids, samples, torch.ones(prompts), longest, Stream(0, 1)), device, repeats=1
    )
    return f"{prompts * samples * longest / seconds:,.0f} tokens/s, {peak:.1f} GiB"


def learning(shapes: dict[str, Shape], device: str) -> Iterator[str]:
    """The bundled recipe: reward and entropy over 60 steps with products in bfloat16."""
    import workbench as wb
    from workbench.training.trainer import Trainer

    steps = 60 if "toy" not in shapes else 2
    overrides = {"policy.device": device, "policy.precision": "bfloat16", "evaluation.sets": []}
    trainer = Trainer(wb.preset("cpu", overrides | {"training.steps": steps}))
    start = time.perf_counter()
    seen = [trainer.step(step).metrics for step in range(1, steps + 1)]
    seconds = (time.perf_counter() - start) / steps
    first, last = ({k: sum(m[k] for m in part) / len(part) for k in seen[0]} for part in (seen[:5], seen[-5:]))
    yield (
        f"bundled policy, {steps} steps of {seconds:.2f} s: reward {first['reward/mean']:.2f} → "
        f"{last['reward/mean']:.2f}, entropy {first['entropy/mean']:.3f} → {last['entropy/mean']:.3f} nats"
    )


def tried(label: str, run: Callable[[], str]) -> str:
    try:
        return f"{label}: {run()}"
    except torch.OutOfMemoryError:
        return f"{label}: out of memory"


def fresh(device: str) -> None:
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


PARTS = {part.__name__: part for part in (correctness, head, update, sampling, learning)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(PARTS), help=f"some of {', '.join(PARTS)}")
    parser.add_argument("--small", action="store_true", help="toy shapes, on any device")
    arguments = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu" and not arguments.small:
        parser.error("there is no GPU here; --small tries the script out without one")
    name = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    print(f"{name}, torch {torch.__version__}", flush=True)
    for part in arguments.only.split(","):
        for line in PARTS[part](SMALL if arguments.small else SHAPES, device):
            print(f"- {line}", flush=True)


if __name__ == "__main__":
    main()
