"""Sampling with a vLLM server of its own, on other GPUs or another machine, over vLLM's own HTTP API.

`python -m workbench serve` starts the server: vLLM's, with the shape of the policy's model and no weights. The trainer
broadcasts its weights to the server's workers, which load them in place; adapters go the same way.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import subprocess
import sys
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from transformers import AutoConfig

from workbench import ranks
from workbench.policy.adapters import save_adapters
from workbench.policy.model import BUNDLED, Policy, bundled_folder
from workbench.rollout.broadcast import Announcement, Sender
from workbench.rollout.vllm import (
    ENVIRONMENT,
    EngineDied,
    VllmSampling,
    engine_settings,
    model_weights,
    require_vllm,
    shared_memory,
)
from workbench.rollout.vllm_worker import likeliest
from workbench.sections import PolicyConfig, VllmConfig

SERVER = "vllm.entrypoints.launchers.api_server.entry"
"""What `vllm serve` runs; the command itself looks for a package that the CPU build does not call by that name."""
NAME = "policy"
"""What the server calls the model."""
ROUTES = {"VLLM_SERVER_DEV_MODE": "1", "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1"}
"""What has vLLM offer the requests that load weights and adapters: the server is for one trainer, not for the world."""
TRANSPORT = "workbench"
"""What vLLM's weight-transfer protocol knows the broadcast by."""
FOLDER = "WORKBENCH_SERVE_FOLDER"
"""Environment variable: a folder of the server's, which is deleted when it ends."""
CLAMPED = -9999.0
"""What the server sends for a log-prob that is not a number."""


class VllmServerEngine(VllmSampling):
    """Samples on the server at `config.server` from the weights `policy` had when `weights_changed` was last called, or
    at the start. Raises `ValueError` if the server does not answer."""

    def __init__(self, policy: Policy, config: VllmConfig):
        super().__init__(policy, config)
        self.server = Server(config.server)
        self.server.require()
        self.longest = self.server.longest()
        self._forget()

    def _forget(self) -> None:
        self._stale, self._sender, self._name, self._syncs, self._model = True, None, "", 0, NAME

    def close(self) -> None:
        """Leave the server, which forgets the adapter and goes on."""
        if self._sender is not None:
            self._sender.close()
            with contextlib.suppress(EngineDied):
                if self._syncs:
                    self.server.post("v1/unload_lora_adapter", lora_name=self._model)
        self._forget()

    def _begin(self) -> None:
        if not self._stale:
            return
        fresh = not self._name
        if fresh:
            self._name = ranks.from_first(secrets.token_hex(4))
        try:
            with self.policy.whole(), ranks.as_one():
                if ranks.is_first():
                    self._send(fresh)
        except EngineDied:
            self.close()  # the next sampling starts anew
            raise
        if self.policy.adapted is not None:
            self._syncs += 1
            self._model = self._adapter(self._syncs)
        self._stale = False

    def _adapter(self, number: int) -> str:
        """Its name on the server, which refuses one it has: a run that was killed has left its own there."""
        return f"{self._name}-{number}"

    def _send(self, fresh: bool) -> None:
        try:
            if fresh:
                self._sender = self.server.met(self.policy.device)
            if self.policy.adapted is None or fresh:
                self._send_weights()
            if self.policy.adapted is not None:
                self._send_adapter()
        except EngineDied:
            raise
        except (OSError, RuntimeError) as error:  # from the broadcast
            raise self.server.gone(error) from error

    def _send_weights(self) -> None:
        self.server.start_update()
        self._sender.send(
            model_weights(self.policy),
            lambda announcement: self.server.post("update_weights", update_info=asdict(announcement)),
            self.policy.precision,
        )
        self.server.post("finish_weight_update")
        self.server.post("reset_prefix_cache")  # its keys and values are of the old weights

    def _send_adapter(self) -> None:
        number, places = self._syncs + 1, []

        def announce(announcement: Announcement) -> None:
            arguments = {"number": number, "announcement": asdict(announcement)}
            places.extend(self.server.post("collective_rpc", method="receive_adapter", kwargs=arguments)["results"])

        with tempfile.TemporaryDirectory(prefix="workbench-vllm-", dir=shared_memory()) as folder:
            save_adapters(self.policy.adapted, Path(folder))
            self._sender.send({file.name: file_bytes(file) for file in Path(folder).iterdir()}, announce)
        if self._syncs:
            self.server.post("v1/unload_lora_adapter", lora_name=self._model)
        self.server.post("v1/load_lora_adapter", lora_name=self._adapter(number), lora_path=places[0])

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

    def longest(self) -> int:
        """The longest prompt and response together, in tokens."""
        return self._answer("v1/models")["data"][0]["max_model_len"]

    def met(self, device: torch.device) -> Sender:
        """The trainer's end of a group with all the server's workers, for tensors on `device`."""
        parts = urllib.parse.urlsplit(self.address)
        return Sender(
            (parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)),
            self._answer("get_world_size")["world_size"],
            device,
            lambda invitation: self.post("init_weight_transfer_engine", init_info=asdict(invitation)),
        )

    def start_update(self) -> None:
        """Begin an update of the weights; one that a trainer began and did not live to finish is finished before."""
        try:
            self.post("start_weight_update")
        except EngineDied:
            self.post("finish_weight_update")
            self.post("start_weight_update")

    def post(self, path: str, **body) -> dict:
        """The answer to a request. Raises `EngineDied` when the server refuses it or is gone."""
        return self._answer(path, json.dumps(body).encode())

    def _answer(self, path: str, body: bytes | None = None) -> dict:
        request = urllib.request.Request(f"{self.address}/{path}", body, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request) as response:
                content = response.read()
        except urllib.error.HTTPError as error:
            said = error.read().decode(errors="replace")[:500]
            raise EngineDied(f"the vLLM server refused {path} ({error.code}): {said}") from error
        except OSError as error:
            raise self.gone(error) from error
        try:
            return json.loads(content) if content else {}
        except ValueError:
            return {}

    def gone(self, error: Exception) -> EngineDied:
        """What to raise when the connection broke by `error`."""
        return EngineDied(
            f"the vLLM server at {self.address} is gone ({error}); start it again and train the same config to continue"
        )


def file_bytes(file: Path) -> torch.Tensor:
    """What the file holds, uint8 [bytes]."""
    return torch.frombuffer(bytearray(file.read_bytes()), dtype=torch.uint8)


def serve_command(folder: Path, policy: PolicyConfig, config: VllmConfig, on_gpu: bool) -> list[str]:
    """The command that serves a model of the policy's shape, written to `folder`, without weights."""
    source = bundled_folder() if policy.model == BUNDLED else policy.model
    shape = AutoConfig.from_pretrained(source)
    shape.tie_word_embeddings = False
    shape.save_pretrained(folder)
    settings = engine_settings(str(folder), policy.precision, policy.lora.rank, config, on_gpu)
    settings |= {"served_model_name": NAME, "worker_extension_cls": "workbench.rollout.vllm_receiver.AdapterSync"}
    options = ["--tokens-only", "--weight-transfer-config", json.dumps({"backend": TRANSPORT})]
    for name, value in settings.items():
        flag = f"--{name.replace('_', '-')}"
        if isinstance(value, bool):
            options.append(flag if value else f"--no-{flag[2:]}")
        elif name != "model" and value is not None:
            options += [flag, str(value)]
    return [sys.executable, "-m", SERVER, "--model", str(folder), *options]


def serve(policy: PolicyConfig, config: VllmConfig, host: str, port: int) -> int:
    """Run the server until it ends, or until `KeyboardInterrupt`, which ends it; returns its exit code. Raises
    `ValueError` without vLLM."""
    require_vllm()
    with tempfile.TemporaryDirectory(prefix="workbench-serve-") as folder:
        command = serve_command(Path(folder), policy, config, torch.cuda.is_available())
        environment = {**os.environ, **ENVIRONMENT, **ROUTES, FOLDER: folder}
        del environment["VLLM_ENABLE_V1_MULTIPROCESSING"]  # the server has an engine process
        server = subprocess.Popen([*command, "--host", host, "--port", str(port)], env=environment)
        try:
            return server.wait()
        except KeyboardInterrupt:
            server.terminate()
            return server.wait()
