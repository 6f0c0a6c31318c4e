"""The process in which vLLM lives: `python -m workbench.rollout.vllm_worker FD FOLDER`, started by `VllmEngine`.

It takes one request at a time from the socket FD and ends when the other side closes it, so it never outlives the
process it samples for. Weights and adapters come through files in FOLDER, in shared memory, that the trainer wrote; it
is deleted at the end, since a trainer that was killed could not.
"""

from __future__ import annotations

import shutil
import sys
import traceback
from multiprocessing.connection import Connection

import numpy as np
import torch

from workbench.rollout.layout import Entry, size_of, views_of


class SharedTensors:
    """Views of the tensors that lie in the file `path`, which is mapped, not read, and stays so: `tensors`, by name.

    With `pinned`, for copies from or to a GPU, the pages are locked; where the system refuses, copies are slower.
    """

    def __init__(self, path: str, entries: list[Entry], pinned: bool):
        self.path, self.entries = path, entries
        self._block = torch.from_file(path, shared=True, size=size_of(entries), dtype=torch.uint8)
        self._pinned = pinned and _pin(self._block)
        self.tensors = views_of(self._block, entries)

    def close(self) -> None:
        """Give the mapping up; views must not be used any more."""
        if self._pinned:
            torch.cuda.cudart().cudaHostUnregister(self._block.data_ptr())
        self.tensors, self._block = [], None


class WeightSync:
    """What vLLM's workers, one per device, can do besides: take weights in place."""

    shared_tensors: SharedTensors | None = None

    def load_shared(self, path: str, entries: list[Entry]) -> None:
        """Load the tensors of the shared file `path` into the model that is already there."""
        if self.shared_tensors is None:
            self.shared_tensors = SharedTensors(path, entries, self.device.type == "cuda")
        self.reload_weights(weights_iterator=self.shared_tensors.tensors, is_checkpoint_format=True)

    def forget_shared(self) -> None:
        """No more tensors will come by the shared file."""
        self.shared_tensors.close()
        self.shared_tensors = None


class Server:
    """Answers `start`, `load`, `forget`, `adapter`, `generate`, `sleep` and `wake`, each with keyword arguments."""

    def __init__(self):
        self.adapter_request = None

    def start(self, **settings) -> int:
        """The longest prompt and response together, in tokens."""
        from vllm import LLM

        self.llm = LLM(**settings, worker_extension_cls=f"{__name__}.{WeightSync.__name__}")
        return self.llm.model_config.max_model_len

    def load(self, path: str, entries: list[Entry]) -> None:
        self.llm.collective_rpc("load_shared", args=(path, entries))
        self.llm.reset_prefix_cache()  # its keys and values are of the old weights

    def forget(self) -> None:
        self.llm.collective_rpc("forget_shared")

    def adapter(self, folder: str, number: int) -> None:
        """Sample with the adapter in `folder` from now on. Its name is new, so the prefix cache starts anew for it."""
        from vllm.lora.request import LoRARequest

        if self.adapter_request is not None:
            self.llm.llm_engine.remove_lora(self.adapter_request.lora_int_id)
        self.adapter_request = LoRARequest(f"adapter-{number}", number, folder)
        self.llm.llm_engine.add_lora(self.adapter_request)

    def generate(
        self, prompts: list[list[int]], temperatures: list[float], seeds: list[int], **shared
    ) -> dict[str, np.ndarray]:
        """One response per prompt; `shared` holds top_p, max_tokens, stop_token_ids and logprobs, the number of
        likeliest tokens to tell at each place."""
        from vllm import SamplingParams

        parameters = [
            SamplingParams(temperature=heat, seed=seed, detokenize=False, **shared)
            for heat, seed in zip(temperatures, seeds, strict=True)
        ]
        asked = [{"prompt_token_ids": ids} for ids in prompts]
        outputs = self.llm.generate(asked, parameters, use_tqdm=False, lora_request=self.adapter_request)
        responses = [output.outputs[0] for output in outputs]
        token = np.concatenate([np.asarray(r.token_ids, dtype=np.int64) for r in responses])
        given = [place for response in responses for place in response.logprobs]
        logps = [place[own].logprob for own, place in zip(token.tolist(), given, strict=True)]
        known = [{number: one.logprob for number, one in place.items()} for place in given]
        return {
            "length": np.array([len(r.token_ids) for r in responses], dtype=np.int64),
            "finished": np.array([r.finish_reason == "stop" for r in responses], dtype=bool),
            "token": token,
            "rollout_logp": np.array(logps, dtype=np.float32),
            **likeliest(known, shared["logprobs"]),
        }

    def sleep(self) -> None:
        self.llm.sleep(level=1)

    def wake(self) -> None:
        self.llm.wake_up()


def _pin(block: torch.Tensor) -> bool:
    """Lock the pages of memory that is there already; whether that could be done."""
    return torch.cuda.cudart().cudaHostRegister(block.data_ptr(), block.nbytes, 0).value == 0


def likeliest(given: list[dict[int, float]], count: int) -> dict[str, np.ndarray]:
    """Columns `top1_token`, `top1_logp`, … of the `count` likeliest tokens at each place; `given` has their log-probs,
    and the sampled token's, by number."""
    ranked = [sorted(place, key=place.get, reverse=True)[:count] for place in given]
    columns = {}
    for rank in range(count):
        columns[f"top{rank + 1}_token"] = np.array([tokens[rank] for tokens in ranked], dtype=np.int64)
        logps = [place[tokens[rank]] for place, tokens in zip(given, ranked, strict=True)]
        columns[f"top{rank + 1}_logp"] = np.array(logps, dtype=np.float32)
    return columns


def main(descriptor: int, folder: str) -> None:
    connection, server = Connection(descriptor), Server()
    while True:
        try:
            name, arguments = connection.recv()
        except (EOFError, ConnectionResetError):
            shutil.rmtree(folder, ignore_errors=True)
            return
        try:
            answer = ("done", getattr(server, name)(**arguments))
        except Exception as error:
            traceback.print_exc()
            answer = ("failed", f"{type(error).__name__}: {error}")
        connection.send(answer)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
