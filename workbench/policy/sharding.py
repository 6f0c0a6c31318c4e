"""A model whose weights, gradients and optimiser state are divided among the ranks (FSDP2).

Every parameter is cut along its first dimension. A decoder layer's weights are whole on all ranks while it computes,
and those outside the layers (embedding, last norm, head) from the beginning of a forward pass to the end of its
backward. Gradients are summed over the ranks, since a loss here is a share of one sum, not a mean of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel


class _Pass(nn.Module):
    """The root that FSDP2 hooks itself into: whatever is computed inside a call of it finds the weights in place."""

    def __init__(self, model: PreTrainedModel):
        super().__init__()
        self.model = model

    def forward(self, call: Callable):
        return call()


class Sharding:
    """Divides `model` among all ranks, in place, on `device`. Raises `ValueError` for a decoder whose layers are not
    found."""

    def __init__(self, model: PreTrainedModel, device: str):
        layers = getattr(model.get_decoder(), "layers", None)
        if not isinstance(layers, nn.ModuleList):
            raise ValueError("training on several ranks: this architecture's layers were not found; use one process")
        mesh = init_device_mesh(device.split(":")[0], (dist.get_world_size(),))
        for layer in layers:
            fully_shard(layer, mesh=mesh)
        self._pass = fully_shard(_Pass(model), mesh=mesh)
        self._parts = [module for module in self._pass.modules() if isinstance(module, FSDPModule)]
        for part in self._parts:
            part.set_gradient_divide_factor(1.0)
            part.set_force_sum_reduction_for_comms(True)
        with torch.no_grad():
            self.within(tuple)  # FSDP2 takes the module that computes first for the root

    def within(self, call: Callable):
        """`call()`, a tensor or nested tuples and dicts of tensors, as one forward pass; every rank has to make as many
        of them. Weights are whole inside, and with gradients until backward is done."""
        out = self._pass(call)
        if not torch.is_grad_enabled():
            self._pass.reset_iter_state()  # FSDP2 would leave the root's weights whole
        return out

    @contextmanager
    def whole(self) -> Iterator[None]:
        """All weights whole on every rank, so that ranks may compute apart, without gradients. Takes the memory of the
        whole model."""
        self._pass.set_reshard_after_forward(False)
        for part in self._parts:
            part.unshard()
        try:
            yield
        finally:
            self._pass.set_reshard_after_forward(True)
            self._pass.set_reshard_after_forward(False, recurse=False)
            self._pass.reset_iter_state()


def full(tensor: Tensor) -> Tensor:
    """The whole of a tensor that may be divided among the ranks; all of them have to ask for it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
