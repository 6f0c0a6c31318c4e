"""What vLLM loads into each worker of a server, so that weights and adapters come to it over the network.

Weights come by vLLM's own weight-transfer protocol, with `workbench.rollout.broadcast` as its transport.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from torch import Tensor
from vllm.distributed.weight_transfer import WeightTransferEngineFactory
from vllm.distributed.weight_transfer.base import WeightTransferEngine
from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload

from workbench.rollout.broadcast import Announcement, Invitation, Receiver
from workbench.rollout.vllm_server import FOLDER, TRANSPORT


class BroadcastEngine(WeightTransferEngine[Invitation, Announcement]):
    """The worker's end of the transport."""

    init_info_cls, update_info_cls = Invitation, Announcement
    receiver: Receiver | None = None

    def init_transfer_engine(self, init_info: Invitation) -> None:
        """Join the trainer; an earlier one is left."""
        self.shutdown()
        parallel = self.parallel_config
        rank = 1 + parallel.data_parallel_index * parallel.world_size + parallel.rank
        self.receiver = Receiver(init_info, rank, self.device)

    def start_weight_update(self) -> None:
        """Nothing yet: only `receive_weights` knows whether the weights are this trainer's."""

    def receive_weights(self, update_info: Announcement) -> None:
        weights = self.received(update_info)
        try:
            initialize_layerwise_reload(self.model)
            self.model.load_weights(weights)
            finalize_layerwise_reload(self.model, self.model_config)
        except BaseException:
            self.shutdown()  # or the trainer would wait for this worker to take the rest
            raise

    def finish_weight_update(self) -> None:
        """Nothing left to do."""

    def received(self, announcement: Announcement) -> Iterator[tuple[str, Tensor]]:
        """What the trainer sends, by name. Raises `RuntimeError` when none has joined."""
        if self.receiver is None:
            raise RuntimeError("no trainer has joined this server")
        return self.receiver.received(announcement)

    def shutdown(self) -> None:
        if self.receiver is not None:
            self.receiver.close()
            self.receiver = None


class AdapterSync:
    """Added to vLLM's worker, whose `weight_transfer_engine` and `local_rank` it uses."""

    def receive_adapter(self, number: int, announcement: dict) -> str:
        """Put the files that the trainer sends, each as bytes, into the folder returned, in place of its last ones."""
        announcement = Announcement(**announcement)
        files = dict(self.weight_transfer_engine.received(announcement))
        place = Path(os.environ[FOLDER]) / Path(announcement.meeting).name
        folder = place / f"adapter-{int(number)}"
        if self.local_rank == 0:
            shutil.rmtree(place, ignore_errors=True)
            folder.mkdir(parents=True)
            for name, content in files.items():
                (folder / Path(name).name).write_bytes(content.cpu().numpy().tobytes())
        return str(folder)


WeightTransferEngineFactory.register_engine(TRANSPORT, BroadcastEngine)
