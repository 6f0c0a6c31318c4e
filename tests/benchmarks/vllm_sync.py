"""How long new weights take to vLLM, in a process of its own and on a server, whole and as adapters.

    python -m tests.benchmarks.vllm_sync [--shape 0.5B] [--repeats 5]

Needs vLLM (`make vllm`). The model has random weights in a published shape, fp32 in the trainer and bfloat16 in vLLM. A
sync is all that happens between an update and the next sampling: median seconds, what went over, and how fast, beside
the time in which this process copies as much memory. Each way samples after its last sync, and how far vLLM's log-probs
are then from the trainer's is printed too: weights that did not arrive would show.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator

import torch

from tests.benchmarks.gpu import SHAPES, Shape, policy_of
from workbench.policy.adapters import adapter_tensors
from workbench.policy.model import Policy
from workbench.policy.packing import pack
from workbench.rollout import Stream
from workbench.rollout.vllm import VllmEngine, VllmSampling, model_weights
from workbench.rollout.vllm_server import VllmServerEngine
from workbench.sections import VllmConfig

SHAPES = SHAPES | {"0.5B": Shape(896, 4864, 24, 14, 2, 151_936, True, gib=0)}
CONFIG = {"cache_gib": 0.5, "max_sequences": 16, "max_length": 512}
PATIENCE = 600


@contextlib.contextmanager
def served(policy: Policy) -> Iterator[str]:
    """The address of a server for the policy's shape."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryDirectory() as folder:
        policy.model.config.save_pretrained(folder)
        fields = [f"rollout.vllm.{name}={value}" for name, value in CONFIG.items()]
        fields += [f"policy.model={folder}", "policy.precision=bfloat16", "policy.lora.rank=32"]
        command = [sys.executable, "-m", "workbench", "serve", *fields, "--port", str(port)]
        server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            for _ in range(PATIENCE):
                with contextlib.suppress(OSError), urllib.request.urlopen(f"{address}/health", timeout=1):
                    break
                assert server.poll() is None, "the server ended"
                time.sleep(1)
            yield address
        finally:
            os.kill(server.pid, signal.SIGTERM)
            server.wait()


def sync_seconds(engine: VllmSampling, repeats: int) -> float:
    """Median of `repeats` syncs after the first, which may start the process."""
    times = []
    for _ in range(repeats + 1):
        engine.weights_changed()
        start = time.perf_counter()
        engine._begin()
        times.append(time.perf_counter() - start)
    return sorted(times[1:])[repeats // 2]


def gap(engine: VllmSampling) -> float:
    """Largest difference of a sampled token's log-prob, vLLM's from the trainer's."""
    prompts = [torch.arange(1, 9, device=engine.policy.device)]
    rollouts = engine.generate(prompts, 4, torch.ones(1), 16, Stream(0, 1))
    heat = rollouts.broadcast_to_tokens(rollouts.sequences.temperature)
    with torch.no_grad():
        scored = engine.policy.token_statistics(pack(rollouts), heat).logp
    return (scored - rollouts.tokens.rollout_logp).abs().max().item()


def copy_seconds(size: int, repeats: int) -> float:
    source, target = (torch.ones(size, dtype=torch.uint8) for _ in range(2))
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        target.copy_(source)
        times.append(time.perf_counter() - start)
    return sorted(times)[repeats // 2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="0.5B")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    place = torch.cuda.get_device_name() if device == "cuda" else f"{os.cpu_count()} CPUs"
    print(f"{options.shape} on {place}, torch {torch.__version__}\n")
    print(f"{'':30}{'s':>8}{'GiB':>8}{'GiB/s':>8}{'copy s':>8}{'log-prob gap':>14}")
    for lora in (False, True):
        policy = policy_of(SHAPES[options.shape], device, lora)
        held = adapter_tensors(policy.adapted).values() if lora else model_weights(policy).values()
        size = sum(t.numel() for t in held) * (4 if lora else 2)
        with served(policy) as address:
            for name, engine in (
                ("own process", VllmEngine(policy, VllmConfig(**CONFIG))),
                ("server", VllmServerEngine(policy, VllmConfig(server=address, **CONFIG))),
            ):
                seconds = sync_seconds(engine, options.repeats)
                what = f"{'adapters' if lora else 'weights'} to {name}"
                copied, apart = copy_seconds(size, options.repeats), gap(engine)
                engine.close()
                print(
                    f"{what:30}{seconds:8.2f}{size / 2**30:8.2f}{size / 2**30 / seconds:8.2f}{copied:8.2f}{apart:14.4f}"
                )


if __name__ == "__main__":
    main()
