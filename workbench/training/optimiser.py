"""AdamW or SGD with a stateless schedule: the learning rate is a function of the update's number."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from workbench.policy.sharding import full
from workbench.sections import OptimiserConfig

SCALER, STEP = "loss_scale", "step"


def learning_rate(config: OptimiserConfig, update: int, total: int) -> float:
    """Rate of update 0 … total − 1: linear warm-up, then constant, or linear or cosine decay to 0."""
    if update < config.warmup_updates:
        return config.learning_rate * (update + 1) / config.warmup_updates
    done = (update - config.warmup_updates) / max(1, total - config.warmup_updates)
    decay = {"constant": 1.0, "linear": 1.0 - done, "cosine": 0.5 * (1.0 + math.cos(math.pi * done))}
    return config.learning_rate * decay[config.schedule]


class Optimiser:
    """AdamW or SGD, gradient clipping and the schedule as one `step`.

    With `precision` float16 the loss has to be multiplied by `loss_scale` before backward, so that small gradients do
    not vanish; an update whose gradient overflows is skipped and the scale halved (arXiv 1710.03740).
    """

    def __init__(
        self,
        parameters: list[torch.nn.Parameter],
        config: OptimiserConfig,
        total_updates: int,
        precision: torch.dtype = torch.float32,
    ):
        self.parameters, self.config, self.total_updates = parameters, config, total_updates
        self.updates = 0
        self.torch = _torch_optimiser(parameters, config)
        self.scaler = torch.amp.GradScaler(parameters[0].device.type, enabled=precision == torch.float16)

    @property
    def loss_scale(self) -> float:
        return self.scaler.get_scale()

    def step(self) -> dict[str, float]:
        """Apply the accumulated gradients; returns their norm before clipping and the learning rate.

        Raises `FloatingPointError` on a non-finite gradient, before any weight is touched; in float16 when the scale
        has nothing left to give.
        """
        if self.scaler.is_enabled():
            self.scaler.scale(torch.ones((), device=self.parameters[0].device))  # makes the scale, once
            self.scaler.unscale_(self.torch)
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        total = full(torch.nn.utils.get_total_norm(gradients))
        torch.nn.utils.clip_grads_with_norm_(self.parameters, self.config.max_grad_norm, total)
        norm = float(total)
        if not math.isfinite(norm) and self.loss_scale <= 1.0:
            raise FloatingPointError(f"non-finite gradient at update {self.updates}; lower optimiser.learning_rate")
        rate = learning_rate(self.config, self.updates, self.total_updates)
        self.torch.param_groups[0]["lr"] = rate
        self.scaler.step(self.torch)
        self.scaler.update()
        self.torch.zero_grad(set_to_none=True)
        self.updates += 1
        measures = {"grad/norm": norm, "lr": rate}
        if self.scaler.is_enabled():
            skipped = not math.isfinite(norm)
            measures |= {"grad/norm": math.nan if skipped else norm, "grad/skipped": float(skipped)}
            measures["grad/loss_scale"] = self.loss_scale
        return measures

    def state_tensors(self) -> dict[str, Tensor]:
        """Moments (and loss scale) as named tensors, for a checkpoint; a number is a tensor of one."""
        state = self.torch.state_dict()["state"]
        tensors = {
            f"{index}.{key}": value if value.dim() else value.reshape(1)
            for index, entry in state.items()
            for key, value in entry.items()
            if value is not None
        }
        for key, value in self.scaler.state_dict().items():
            tensors[f"{SCALER}.{key}"] = torch.tensor([value], dtype=torch.float64)
        return tensors

    def blank_state(self, shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
        """Tensors of these names and shapes for a checkpoint to be read into: moments are divided as the weights are.
        Raises `ValueError` for the state of other parameters."""
        blank = {}
        for name, shape in shapes.items():
            index = name.split(".", 1)[0]
            if index != SCALER and int(index) >= len(self.parameters):
                raise ValueError(f"the optimiser's state has a tensor '{name}', but there are fewer parameters")
            like = None if index == SCALER else self.parameters[int(index)].detach()
            if like is not None and tuple(like.shape) == shape:
                blank[name] = torch.zeros_like(like)
            else:
                blank[name] = torch.zeros(shape, dtype=torch.float64 if like is None else torch.float32)
        return blank

    def load_state_tensors(self, tensors: dict[str, Tensor], updates: int) -> None:
        state: dict[int, dict[str, Tensor]] = {}
        scaler: dict[str, float] = {}
        for name, value in tensors.items():
            index, key = name.split(".", 1)
            if index == SCALER:
                scaler[key] = value.item()
            else:
                state.setdefault(int(index), {})[key] = value.reshape(()) if key == STEP else value
        groups = self.torch.state_dict()["param_groups"]
        self.torch.load_state_dict({"state": state, "param_groups": groups})
        if scaler:
            whole = ("growth_interval", "_growth_tracker")
            self.scaler.load_state_dict({k: int(v) if k in whole else v for k, v in scaler.items()})
        self.updates = updates


def _torch_optimiser(parameters: list[torch.nn.Parameter], config: OptimiserConfig) -> torch.optim.Optimizer:
    shared = {"lr": config.learning_rate, "weight_decay": config.weight_decay}
    if config.name == "sgd":
        whole = not any(isinstance(parameter, DTensor) for parameter in parameters)
        return torch.optim.SGD(
            parameters, momentum=config.momentum, fused=whole, **shared
        )  # torch fuses whole ones only
    return torch.optim.AdamW(parameters, betas=(config.beta1, config.beta2), fused=True, **shared)
