"""The vLLM engine: sampling in a process of its own, with the trainer's weights put into it in place after updates.

vLLM runs in a freshly started Python, never in the trainer's: its memory is really released when the engine is closed,
several runs can follow one another in one notebook, and its death is an exception here. Weights travel through shared
memory; of a policy with adapters only the adapters do, after the base weights have gone over once.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import weakref
from importlib.util import find_spec
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from workbench import ranks
from workbench.policy.adapters import save_adapters
from workbench.policy.model import Policy
from workbench.rollout.layout import entries_of, size_of
from workbench.rollout.streams import Stream, request_seed
from workbench.rollout.vllm_worker import SharedTensors
from workbench.sections import VllmConfig
from workbench.tables import Rollouts, Table, require_finite, token_index

LOG_LINES, LOG_WIDTH = 15, 300
"""Last lines of vLLM's log that go into an error message, and characters of each: it dumps its state into one line."""
ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # this process is vLLM's own already
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # trainer and sampler take turns on the same cores
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "WARNING",
}


class EngineDied(RuntimeError):
    """The process of the sampling engine has ended, or vLLM failed in it."""


class VllmSampling:
    """Sampling by a vLLM, wherever it runs: `_begin` gives it the policy's weights, `_sample` asks it, `_end` lets it
    rest. `longest` is how many tokens prompt and response may have together, known once there is one."""

    longest: int

    def __init__(self, policy: Policy, config: VllmConfig):
        self.policy, self.config = policy, config
        self._stale = True

    def _begin(self) -> None:
        raise NotImplementedError

    def _sample(self, **arguments) -> dict[str, np.ndarray]:
        """Columns of the responses, see `workbench.rollout.vllm_worker.Server.generate`, which has the arguments."""
        raise NotImplementedError

    def _end(self) -> None:
        """Nothing to do unless told otherwise."""

    def generate(
        self,
        prompts: list[Tensor],
        samples: int,
        temperature: Tensor,
        max_new_tokens: int,
        stream: Stream,
        *,
        top_p: float = 1.0,
        discriminator: bool = False,
        alternatives: int = 0,
    ) -> Rollouts:
        """Like `NativeEngine.generate`, but tokens have no `entropy` and no `expected_discriminator`: vLLM gives
        neither, the trainer's scoring does. Every response has a seed of its own, see `request_seed`.

        Raises `NonFiniteError` naming prompt and sample, `EngineDied`, and `ValueError` for what may become too long.
        """
        self._begin()
        self._require_room(max(map(len, prompts)), max_new_tokens)
        count = len(prompts)
        heat = temperature.double().repeat_interleave(samples)
        answer = self._sample(
            prompts=[ids.tolist() for ids in prompts for _ in range(samples)],
            temperatures=heat.tolist(),
            seeds=[request_seed(stream, prompt, sample) for prompt in range(count) for sample in range(samples)],
            top_p=top_p,
            max_tokens=max_new_tokens,
            stop_token_ids=list(self.policy.eos_ids),
            logprobs=alternatives,
        )
        self._end()
        device = self.policy.device
        got = {name: torch.from_numpy(values).to(device) for name, values in answer.items()}
        rollouts = _rollouts([ids.to(device) for ids in prompts], samples, heat.float().to(device), got)
        logp, broken = got["rollout_logp"], "the policy's logits are broken while sampling with vLLM"
        require_finite(rollouts, "rollout_logp", logp, broken)
        return rollouts

    def _require_room(self, prompt: int, response: int) -> None:
        """vLLM would cut responses short without a word."""
        if prompt + response > self.longest:
            raise ValueError(
                f"a prompt of {prompt} tokens and a response of up to {response} are more than the {self.longest} that "
                "vLLM has room for; raise rollout.vllm.max_length if the model allows it, or lower "
                "rollout.max_new_tokens (evaluation.max_new_tokens)"
            )

    def weights_changed(self) -> None:
        """The policy is not what it was: send it before the next sampling."""
        self._stale = True


class VllmEngine(VllmSampling):
    """Samples with vLLM from the weights `policy` had when `weights_changed` was last called, or at the start.

    The process starts with the first `generate`. Close it with `close`; it also ends with this process. Raises
    `ValueError` without vLLM, and when it is to sleep without a GPU.
    """

    def __init__(self, policy: Policy, config: VllmConfig):
        require_vllm()
        if config.sleep and policy.device.type != "cuda":
            raise ValueError("rollout.vllm.sleep gives GPU memory back, and there is no GPU; set it to false")
        super().__init__(policy, config)
        self.process: subprocess.Popen | None = None
        self._shared: SharedTensors | None = None
        self._syncs = 0

    def _sample(self, **arguments) -> dict[str, np.ndarray]:
        return self._ask("generate", **arguments)

    def _end(self) -> None:
        if self.config.sleep:
            self._ask("sleep")

    def close(self) -> None:
        """End the process and free its memory and the shared files; sampling again starts a new one."""
        if self.process is not None:
            self._finalizer()
            self._forget_shared()
            self.process = None

    def _begin(self) -> None:
        fresh = self.process is None
        with ranks.as_one():  # before the weights come together, which takes all ranks
            if fresh:
                self._start()
            elif self.config.sleep:
                self._ask("wake")
        if self._stale or fresh:
            with self.policy.whole():
                self._synchronise(fresh)
            self._stale = False

    def _synchronise(self, fresh: bool) -> None:
        adapted = self.policy.adapted
        if adapted is None or fresh:
            self._send_weights()
        if adapted is not None:
            self._syncs += 1
            folder = self.folder / f"adapter-{self._syncs}"
            folder.mkdir()
            save_adapters(adapted, folder)
            self._ask("adapter", folder=str(folder), number=self._syncs)
            shutil.rmtree(folder)

    def _start(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="workbench-vllm-", dir=shared_memory()))
        ours, theirs = socket.socketpair()
        with theirs, (self.folder / "log").open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", f"{__name__}_worker", str(theirs.fileno()), str(self.folder)],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=ranks.environment_alone() | ENVIRONMENT,
                start_new_session=True,
            )
        self.connection = Connection(ours.detach())
        self._finalizer = weakref.finalize(self, _shut_down, self.process, self.connection, self.folder)
        # The shape of the model is all vLLM has to know; its weights, the head's own included, are sent.
        config = self.policy.model.config.__class__.from_dict(self.policy.model.config.to_dict())
        config.tie_word_embeddings = False
        config.save_pretrained(self.folder / "model")
        rank = 0 if self.policy.adapted is None else self.policy.adapted.peft_config["default"].r
        precision, on_gpu = str(self.policy.precision).removeprefix("torch."), self.policy.device.type == "cuda"
        settings = engine_settings(str(self.folder / "model"), precision, rank, self.config, on_gpu)
        self.longest = self._ask("start", **settings)

    def _send_weights(self) -> None:
        weights = model_weights(self.policy)
        if self._shared is None:
            path = self.folder / "weights"
            entries = entries_of(weights, self.policy.precision)
            with path.open("xb") as file:
                file.truncate(size_of(entries))
            self._shared = SharedTensors(str(path), entries, self.policy.device.type == "cuda")
        for (_, shared), tensor in zip(self._shared.tensors, weights.values(), strict=True):
            shared.copy_(tensor)
        self._ask("load", path=self._shared.path, entries=self._shared.entries)
        if self.policy.adapted is not None:  # the base goes over once
            self._ask("forget")
            self._forget_shared()

    def _forget_shared(self) -> None:
        if self._shared is not None:
            Path(self._shared.path).unlink(missing_ok=True)
            self._shared.close()
            self._shared = None

    def _ask(self, name: str, **arguments):
        try:
            self.connection.send((name, arguments))
            state, answer = self.connection.recv()
        except (EOFError, OSError) as error:
            raise EngineDied(self._account(f"ended ({_exit(self.process)})")) from error
        if state == "failed":
            given = ", ".join(f"{field} {value}" for field, value in self.config if value)
            what = f"could not start with rollout.vllm {given}" if name == "start" else "failed"
            raise EngineDied(self._account(f"{what}: {answer.strip()}"))
        return answer

    def _account(self, what: str) -> str:
        lines = (self.folder / "log").read_text(errors="replace").splitlines()[-LOG_LINES:]
        lines = [line[:LOG_WIDTH] for line in lines]
        self.close()
        return f"the vLLM engine {what}; train the same config to continue. Its last lines:\n" + "\n".join(lines)


def require_vllm() -> None:
    """Raises `ValueError` if vLLM is not installed."""
    if find_spec("vllm") is None:
        raise ValueError(
            "rollout.engine 'vllm' needs vLLM, which is not installed; run `make vllm`, or set it to 'native'"
        )


def shared_memory() -> Path | None:
    """Where files never touch a disk; None where there is no such place."""
    memory = Path("/dev/shm")
    return memory if memory.is_dir() else None


def engine_settings(model: str, precision: str, lora_rank: int, config: VllmConfig, on_gpu: bool) -> dict:
    """vLLM's settings for a model whose weights are sent."""
    lora = {"enable_lora": True, "max_lora_rank": max(8, lora_rank), "max_loras": 1} if lora_rank else {}
    return {
        "model": model,
        "load_format": "dummy",
        "skip_tokenizer_init": True,
        "generation_config": "vllm",
        "dtype": precision,
        "logprobs_mode": "processed_logprobs",
        "tensor_parallel_size": config.tensor_parallel,
        "max_num_seqs": config.max_sequences,
        "max_model_len": config.max_length or None,
        "kv_cache_memory_bytes": int(config.cache_gib * 2**30),
        "enable_sleep_mode": config.sleep,
        "enforce_eager": not on_gpu,  # on CPU compilation takes minutes
        "enable_chunked_prefill": on_gpu,  # on CPU it fails with seeds: a part's random draw cannot be taken back
        **lora,
    }


def model_weights(policy: Policy) -> dict[str, Tensor]:
    """The model's weights by their names in a checkpoint, without adapters; a tied head counts as a weight too."""
    weights = {
        name.replace(".base_layer.", "."): tensor.detach()
        for name, tensor in policy.model.named_parameters()
        if "lora_" not in name
    }
    return weights | {"lm_head.weight": policy.model.get_output_embeddings().weight.detach()}


def _rollouts(prompts: list[Tensor], samples: int, heat: Tensor, got: dict[str, Tensor]) -> Rollouts:
    prompt = torch.arange(len(prompts), device=heat.device).repeat_interleave(samples)
    sequences = Table(
        prompt=prompt,
        sample=torch.arange(len(prompt), device=heat.device) % samples,
        group=prompt,
        length=got["length"],
        temperature=heat,
        finished=got["finished"],
    )
    sequence, position = token_index(got["length"])
    columns = {name: values for name, values in got.items() if name not in ("length", "finished")}
    tokens = Table(sequence=sequence, position=position, **columns)
    return Rollouts(prompts, sequences, tokens)


def _exit(process: subprocess.Popen) -> str:
    try:
        code = process.wait(10)
    except subprocess.TimeoutExpired:
        return "its connection broke"
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def _shut_down(process: subprocess.Popen, connection: Connection, folder: Path) -> None:
    connection.close()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(5)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # and what it started, for tensor parallelism
    process.wait()
    shutil.rmtree(folder, ignore_errors=True)  # the process does it too, but not if it was killed
