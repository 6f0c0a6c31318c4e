"""The fused head at a vocabulary of 151,936: accuracy of entropy, cost of entropy, peak memory.

    python -m tests.benchmarks.head [--device cuda] [--tokens 512] [--width 512]

Accuracy: random bfloat16 logits scaled to a mean entropy, the same for every form, fp64 as truth; relative bias of the
mean and, in brackets, relative RMS error per row. Cost: forward and backward of the head with log-prob and entropy,
against a twin of the same chunks that computes the log-prob alone, alternating; median of the ratios. Memory: what
forward and backward need at most beyond inputs and gradients, over tokens, against plain logits.
"""

import argparse
import gc
import statistics
import time
from pathlib import Path

import torch
from torch.nn.functional import linear

from workbench.policy.head import chunks, distribution, elements_on, fused_head

VOCABULARY = 151_936
ENTROPIES = (9.8, 2.5, 0.18, 0.01, 0.001, 0.00013)


def forms(logits: torch.Tensor) -> dict[str, torch.Tensor]:
    """Entropy [n] of fp32 logits [n, V] in the three forms in use."""
    logp = logits.log_softmax(-1)
    probs = logp.exp()
    return {
        "logsumexp − Σ p·z": logits.logsumexp(-1) - (probs * logits).sum(-1),
        "−Σ p·log p": -(probs * logp).sum(-1),
        "ours": distribution(logits.clone())[3],
    }


def logits_of_entropy(target: float, rows: int, device: str) -> torch.Tensor:
    """bfloat16 logits [rows, V]: normal noise under one raised token, whose height gives the mean entropy `target`."""
    generator = torch.Generator(device=device).manual_seed(0)
    noise = torch.randn(rows, VOCABULARY, generator=generator, device=device) * 2
    low, high = 0.0, 40.0
    for _ in range(16):
        height = (low + high) / 2
        noise[:, 0] = height
        entropy = distribution(noise[:4].clone())[3].mean().item()
        low, high = (height, high) if entropy > target else (low, height)
    return noise.bfloat16()


def accuracy(device: str, rows: int = 32) -> None:
    print(f"{'entropy':>10}  " + "".join(f"{name:>26}" for name in ("logsumexp − Σ p·z", "−Σ p·log p", "ours")))
    for target in ENTROPIES:
        logits = logits_of_entropy(target, rows, device)
        wide = logits.double().log_softmax(-1)
        truth = -(wide.exp() * wide).sum(-1)
        cells = []
        for got in forms(logits.float()).values():
            error = got.double() - truth
            bias, spread = error.mean() / truth.mean(), (error / truth).square().mean().sqrt()
            cells.append(f"{bias:+.1e} ({spread:.0e})")
        print(f"{truth.mean():10.5f}  " + "".join(f"{cell:>26}" for cell in cells), flush=True)


class _LogProbAlone(torch.autograd.Function):
    """The fused head without entropy: the same chunks, products and recomputation."""

    @staticmethod
    def forward(ctx, hidden, weight, target, size):
        ctx.save_for_backward(hidden, weight, target)
        ctx.size = size
        logp = torch.empty(len(target), device=hidden.device)
        for rows in chunks(len(target), size):
            logits = linear(hidden[rows], weight)
            logp[rows] = logits.gather(1, target[rows, None]).squeeze(1) - logits.logsumexp(-1)
        return logp

    @staticmethod
    def backward(ctx, grad):
        hidden, weight, target = ctx.saved_tensors
        grad_hidden, grad_weight = torch.empty_like(hidden), torch.zeros_like(weight)
        for rows in chunks(len(target), ctx.size):
            inner = linear(hidden[rows], weight).softmax(-1).mul_(-grad[rows].unsqueeze(1))
            inner.scatter_add_(1, target[rows, None], grad[rows].unsqueeze(1))
            grad_hidden[rows] = inner @ weight
            grad_weight.addmm_(inner.T, hidden[rows])
        return grad_hidden, grad_weight, None, None


def _inputs(tokens: int, width: int, device: str):
    torch.manual_seed(0)
    hidden = torch.randn(tokens, width, device=device, requires_grad=True)
    weight = (torch.randn(VOCABULARY, width, device=device) * 0.05).requires_grad_()
    return hidden, weight, torch.randint(VOCABULARY, (tokens,), device=device)


def _with_entropy(hidden, weight, target):
    out = fused_head(hidden, weight, target, torch.ones(len(target), device=hidden.device))
    (out.logp.sum() + 0.01 * out.entropy.sum()).backward()


def _alone(hidden, weight, target):
    size = max(1, elements_on(hidden.device)[0] // VOCABULARY)
    _LogProbAlone.apply(hidden, weight, target, size).sum().backward()


def _plain(hidden, weight, target):
    logp = linear(hidden, weight).log_softmax(-1)
    entropy = -(logp.exp() * logp).sum(-1)
    (logp.gather(1, target[:, None]).sum() + 0.01 * entropy.sum()).backward()


def _seconds(run, *inputs) -> float:
    if inputs[0].is_cuda:
        torch.cuda.synchronize()
    start = time.perf_counter()
    run(*inputs)
    if inputs[0].is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - start


def cost(device: str, tokens: int, width: int, rounds: int = 7) -> None:
    inputs = _inputs(tokens, width, device)
    pairs = [(_seconds(_with_entropy, *inputs), _seconds(_alone, *inputs)) for _ in range(rounds + 1)][1:]
    ratio = statistics.median(both / alone for both, alone in pairs)
    both, alone = (statistics.median(column) for column in zip(*pairs, strict=True))
    print(
        f"\n{tokens} tokens, width {width}: log-prob and entropy {both * 1e3:.0f} ms, log-prob alone "
        f"{alone * 1e3:.0f} ms, ratio {ratio:.3f}"
    )


def peak(run, *inputs) -> float:
    """MiB that `run` needs at most beyond what is there before it, gradients included."""
    gc.collect()
    if inputs[0].is_cuda:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run(*inputs)
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    Path("/proc/self/clear_refs").write_text("5")
    before = _resident("VmRSS")
    run(*inputs)
    return (_resident("VmHWM") - before) / 2**10


def _resident(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field))


def memory(device: str, width: int) -> None:
    print(f"\n{'tokens':>8} {'ours MiB':>10} {'plain logits MiB':>18}   (both with the gradients they leave)")
    for tokens in (64, 256, 1024):
        cells = []
        for run in (_with_entropy, _plain):
            inputs = _inputs(tokens, width, device)
            cells.append(peak(run, *inputs))
            del inputs
        print(f"{tokens:8} {cells[0]:10,.0f} {cells[1]:18,.0f}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--width", type=int, default=512)
    given = parser.parse_args()
    accuracy(given.device)
    cost(given.device, given.tokens, given.width)
    memory(given.device, given.width)
