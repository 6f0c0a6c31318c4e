"""The fused head at a vocabulary of 151,936: accuracy of entropy, cost of entropy, peak memory.

    python -m tests.benchmarks.head [--device cuda] [--tokens 512] [--widths 128 512 896 1536]

Accuracy: random bfloat16 logits scaled to a mean entropy, the same for every form, fp64 as truth; relative bias of the
mean and, in brackets, relative RMS error per row. Cost: forward and backward of the head, entropy being measured or
part of the loss, against a twin on the same chunks and blocks that computes the log-prob alone, alternating; medians of
the ratios. The model under the head is not in it, so in an update the share is smaller still. Memory: what forward and
backward need at most beyond inputs and gradients, over tokens, against plain logits.
"""

import argparse
import gc
import statistics
import time
from pathlib import Path

import torch
from torch.nn.functional import linear

from workbench.policy.head import _Walk, distribution, elements_on, fused_head

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
    """The fused head without entropy: the same chunks and blocks, without what only entropy needs."""

    @staticmethod
    def forward(ctx, hidden, weight, target):
        walk = _walk(hidden, weight)
        space, logp, norm = walk.space(), torch.empty_like(walk.heat), torch.empty_like(walk.heat)
        for rows, logits in walk:
            for own, z in walk.blocks(rows, logits):
                top = z.amax(-1)
                total = torch.sub(z, top.unsqueeze(1), out=space[: len(z)]).exp_().sum(-1)
                norm[own] = top + total.log()
                logp[own] = z.gather(1, target[own].unsqueeze(1)).squeeze(1) - norm[own]
        ctx.save_for_backward(hidden, weight, target, norm, logp)
        return logp

    @staticmethod
    def backward(ctx, grad_logp):
        hidden, weight, target, norm, logp = ctx.saved_tensors
        walk = _walk(hidden, weight)
        own = grad_logp * (1 - logp.exp())
        grad_hidden, grad_weight = torch.empty_like(hidden), torch.zeros_like(weight)
        for rows, grad in walk:
            for part, z in walk.blocks(rows, grad):
                z.sub_(norm[part].unsqueeze(1)).exp_().mul_(-grad_logp[part].unsqueeze(1))
                z.scatter_(1, target[part].unsqueeze(1), own[part].unsqueeze(1))
            torch.mm(grad, weight, out=grad_hidden[rows])
            grad_weight.addmm_(grad.T, hidden[rows])
        return grad_hidden, grad_weight, None


def _walk(hidden, weight) -> _Walk:
    return _Walk.over(hidden, weight, None, torch.ones_like(hidden[:, 0]), elements_on(hidden.device))


def _inputs(tokens: int, width: int, device: str):
    torch.manual_seed(0)
    hidden = torch.randn(tokens, width, device=device, requires_grad=True)
    weight = (torch.randn(VOCABULARY, width, device=device) * 0.05).requires_grad_()
    return hidden, weight, torch.randint(VOCABULARY, (tokens,), device=device)


def _head(hidden, weight, target):
    return fused_head(hidden, weight, target, torch.ones(len(target), device=hidden.device))


def _measured(hidden, weight, target):
    _head(hidden, weight, target).logp.sum().backward()


def _with_entropy(hidden, weight, target):
    out = _head(hidden, weight, target)
    (out.logp.sum() + 0.01 * out.entropy.sum()).backward()


def _alone(hidden, weight, target):
    _LogProbAlone.apply(hidden, weight, target).sum().backward()


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


def cost(device: str, tokens: int, widths: list[int], rounds: int = 7) -> None:
    print(f"\n{tokens} tokens, forward and backward: ratios to log-prob alone, medians of {rounds}")
    print(f"{'width':>8} {'log-prob alone':>16} {'entropy measured':>18} {'entropy in the loss':>21}")
    for width in widths:
        inputs = _inputs(tokens, width, device)
        times = [[_seconds(run, *inputs) for run in (_alone, _measured, _with_entropy)] for _ in range(rounds + 1)][1:]
        measured, in_loss = (statistics.median(row[i] / row[0] for row in times) for i in (1, 2))
        alone = statistics.median(row[0] for row in times) * 1e3
        print(f"{width:8} {alone:13,.0f} ms {measured:18.3f} {in_loss:21.3f}", flush=True)


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
    parser.add_argument("--widths", type=int, nargs="+", default=[128, 512, 896, 1536])
    given = parser.parse_args()
    accuracy(given.device)
    cost(given.device, given.tokens, given.widths)
    memory(given.device, given.widths[0])
