"""Sampling with a vLLM server of its own, on other GPUs or another machine, over vLLM's own HTTP API.

`python -m workbench serve` starts the server: vLLM's, with the shape of the policy's model and no weights. The trainer
puts its weights into a file that both see and has the server load them in place; adapters are exchanged the same way.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from transformers import AutoConfig

from workbench import ranks
from workbench.policy.adapters import save_adapters
from workbench.policy.model import BUNDLED, Policy, bundled_folder
from workbench.rollout.vllm import (
    ENVIRONMENT,
    EngineDied,
    VllmSampling,
    engine_settings,
    require_vllm,
    shared_memory,
    write_weights,
)
from workbench.rollout.vllm_worker import WeightSync, likeliest
from workbench.sections import PolicyConfig, VllmConfig

SERVER = "vllm.entrypoints.launchers.api_server.entry"
"""What `vllm serve` runs; the command itself looks for a package that the CPU build does not call by that name."""
NAME = "policy"
"""What the server calls the model."""
ROUTES = {"VLLM_SERVER_DEV_MODE": "1", "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1"}
"""What has vLLM offer the requests that load weights and adapters: the server is for one trainer, not for the world."""
CLAMPED = -9999.0
"""What the server sends for a log-prob that is not a number."""


class VllmServerEngine(VllmSampling):
    """Samples on the server at `config.server` from the weights `policy` had when `weights_changed` was last called, or
    at the start. Raises `ValueError` if the server does not answer."""

    def __init__(self, policy: Policy, config: VllmConfig):
        super().__init__(policy, config)
        self.server = Server(config.server)
        self.server.require()
        self.folder: Path | None = None
        self._syncs, self._model = 0, NAME

    def close(self) -> None:
        """Delete the exchanged files and have the server forget the adapter; the server goes on."""
        if self.folder is None:
            return
        if ranks.is_first():
            if self._syncs:
                with contextlib.suppress(EngineDied):
                    self.server.post("v1/unload_lora_adapter", lora_name=self._model)
            shutil.rmtree(self.folder, ignore_errors=True)
        self.folder, self._stale, self._syncs, self._model = None, True, 0, NAME

    def _begin(self) -> None:
        if not self._stale:
            return
        fresh = self.folder is None
        if fresh:
            self.folder = self._exchange()
        with self.policy.whole(), ranks.as_one():
            if ranks.is_first():
                self._send(fresh)
        if self.policy.adapted is not None:
            self._syncs += 1
            self._model = self._adapter(self._syncs)
        self._stale = False

    def _exchange(self) -> Path:
        """The first rank's folder for what is exchanged."""
        made = None
        with ranks.as_one():  # before the ranks wait for its name
            if ranks.is_first():
                made = tempfile.mkdtemp(prefix="workbench-vllm-", dir=self.config.exchange or shared_memory())
        return Path(ranks.from_first(made))

    def _adapter(self, number: int) -> str:
        """Its name on the server, which refuses one it has: a run that was killed has left its own there."""
        return f"{self.folder.name}-{number}"

    def _send(self, fresh: bool) -> None:
        adapted = self.policy.adapted
        if adapted is None or fresh:
            path = self.folder / "weights"
            entries = write_weights(self.policy, path)
            self.server.post("collective_rpc", method="load_shared", kwargs={"path": str(path), "entries": entries})
            self.server.post("reset_prefix_cache")  # its keys and values are of the old weights
        if adapted is not None:
            folder = self.folder / "adapter"
            folder.mkdir(exist_ok=True)
            save_adapters(adapted, folder)
            if self._syncs:
                self.server.post("v1/unload_lora_adapter", lora_name=self._adapter(self._syncs))
            self.server.post("v1/load_lora_adapter", lora_name=self._adapter(self._syncs + 1), lora_path=str(folder))

    def _sample(
        self, prompts: list[list[int]], temperatures: list[float], seeds: list[int], logprobs: int, **shared
    ) -> dict[str, np.ndarray]:
        parameters = {"logprobs": logprobs + 1 if logprobs else 0, "detokenize": False, **shared}

        def ask(prompt: list[int], heat: float, seed: int) -> dict:
            own = {"temperature": heat, "seed": seed, **parameters}
            answer = self.server.post("inference/v1/generate", model=self._model, token_ids=prompt, sampling_params=own)
            return answer["choices"][0]

        with ThreadPoolExecutor(min(len(prompts), self.config.max_sequences)) as pool:
            responses = list(pool.map(ask, prompts, temperatures, seeds))
        return response_columns(responses, logprobs)


def response_columns(responses: Sequence[dict], alternatives: int) -> dict[str, np.ndarray]:
    """The columns of the server's responses, as `Server.generate` of the worker gives them."""
    places = [place for response in responses for place in response["logprobs"]["content"]]
    given = [
        {one["token_id"]: one["logprob"] for one in (place, *place["top_logprobs"])} if alternatives else {}
        for place in places
    ]
    logp = np.array([place["logprob"] for place in places], dtype=np.float32)
    return {
        "length": np.array([len(response["token_ids"]) for response in responses], dtype=np.int64),
        "finished": np.array([response["finish_reason"] == "stop" for response in responses], dtype=bool),
        "token": np.array([token for response in responses for token in response["token_ids"]], dtype=np.int64),
        "rollout_logp": np.where(logp <= CLAMPED, np.float32("nan"), logp),
        **likeliest(given, alternatives),
    }


class Server:
    """The HTTP API of a vLLM server."""

    def __init__(self, address: str):
        self.address = address.rstrip("/")

    def require(self) -> None:
        """Raises `ValueError` unless the server answers."""
        try:
            urllib.request.urlopen(f"{self.address}/health", timeout=30).close()
        except (OSError, ValueError) as error:
            raise ValueError(
                f"rollout.vllm.server '{self.address}' does not answer ({error}); start it with `python -m workbench "
                "serve` and the run's config, or leave the field empty"
            ) from error

    def post(self, path: str, **body) -> dict:
        """The answer to a request. Raises `EngineDied` when the server refuses it or is gone."""
        request = urllib.request.Request(
            f"{self.address}/{path}", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request) as response:
                content = response.read()
        except urllib.error.HTTPError as error:
            said = error.read().decode(errors="replace")[:500]
            raise EngineDied(f"the vLLM server refused {path} ({error.code}): {said}") from error
        except OSError as error:
            raise EngineDied(
                f"the vLLM server at {self.address} is gone ({error}); start it again and train the same config to "
                "continue"
            ) from error
        try:
            return json.loads(content) if content else {}
        except ValueError:
            return {}


def serve_command(folder: Path, policy: PolicyConfig, config: VllmConfig, on_gpu: bool) -> list[str]:
    """The command that serves a model of the policy's shape, written to `folder`, without weights."""
    source = bundled_folder() if policy.model == BUNDLED else policy.model
    shape = AutoConfig.from_pretrained(source)
    shape.tie_word_embeddings = False
    shape.save_pretrained(folder)
    settings = engine_settings(str(folder), policy.precision, policy.lora.rank, config, on_gpu)
    settings |= {"served_model_name": NAME, "worker_extension_cls": f"{WeightSync.__module__}.{WeightSync.__name__}"}
    options = ["--tokens-only"]
    for name, value in settings.items():
        flag = f"--{name.replace('_', '-')}"
        if value is True:
            options.append(flag)
        elif name != "model" and value not in (None, False):
            options += [flag, str(value)]
    return [sys.executable, "-m", SERVER, "--model", str(folder), *options]


def serve(policy: PolicyConfig, config: VllmConfig, host: str, port: int) -> int:
    """Run the server until it is stopped; returns its exit code. Raises `ValueError` without vLLM."""
    require_vllm()
    with tempfile.TemporaryDirectory(prefix="workbench-serve-") as folder:
        command = serve_command(Path(folder), policy, config, torch.cuda.is_available())
        environment = {**os.environ, **ENVIRONMENT, **ROUTES}
        del environment["VLLM_ENABLE_V1_MULTIPROCESSING"]  # the server has an engine process
        return subprocess.call([*command, "--host", host, "--port", str(port)], env=environment)
