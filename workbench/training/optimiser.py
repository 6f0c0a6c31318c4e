"""AdamW with a stateless schedule: the learning rate is a function of the update's number."""

from __future__ import annotations

import math

import torch

from workbench.config import OptimiserConfig


def learning_rate(config: OptimiserConfig, update: int, total: int) -> float:
    """Rate of update 0 … total − 1: linear warm-up, then constant, or linear or cosine decay to 0."""
    if update < config.warmup_updates:
        return config.learning_rate * (update + 1) / config.warmup_updates
    done = (update - config.warmup_updates) / max(1, total - config.warmup_updates)
    decay = {"constant": 1.0, "linear": 1.0 - done, "cosine": 0.5 * (1.0 + math.cos(math.pi * done))}
    return config.learning_rate * decay[config.schedule]


class Optimiser:
    """AdamW, gradient clipping and the schedule as one `step`."""

    def __init__(self, parameters: list[torch.nn.Parameter], config: OptimiserConfig, total_updates: int):
        self.parameters, self.config, self.total_updates = parameters, config, total_updates
        self.updates = 0
        betas = (config.beta1, config.beta2)
        self.adamw = torch.optim.AdamW(
            parameters, lr=config.learning_rate, betas=betas, weight_decay=config.weight_decay, fused=True
        )

    def step(self) -> dict[str, float]:
        """Apply the accumulated gradients; returns their norm before clipping and the learning rate.

        Raises `FloatingPointError` on a non-finite gradient, before any weight is touched.
        """
        norm = float(torch.nn.utils.clip_grad_norm_(self.parameters, self.config.max_grad_norm))
        if not math.isfinite(norm):
            raise FloatingPointError(f"non-finite gradient at update {self.updates}; lower optimiser.learning_rate")
        rate = learning_rate(self.config, self.updates, self.total_updates)
        self.adamw.param_groups[0]["lr"] = rate
        self.adamw.step()
        self.adamw.zero_grad(set_to_none=True)
        self.updates += 1
        return {"grad/norm": norm, "lr": rate}

    def state_tensors(self) -> dict[str, torch.Tensor]:
        """AdamW's moments as named tensors, for a checkpoint."""
        state = self.adamw.state_dict()["state"]
        return {f"{index}.{key}": value for index, entry in state.items() for key, value in entry.items()}

    def load_state_tensors(self, tensors: dict[str, torch.Tensor], updates: int) -> None:
        state: dict[int, dict[str, torch.Tensor]] = {}
        for name, value in tensors.items():
            index, key = name.split(".", 1)
            state.setdefault(int(index), {})[key] = value
        groups = self.adamw.state_dict()["param_groups"]
        self.adamw.load_state_dict({"state": state, "param_groups": groups})
        self.updates = updates
