"""Activation checkpointing: a decoder layer keeps its input and is computed again in backward.

transformers offers it in training mode only; the policy stays in evaluation mode, so that it samples and trains as the
same function.
"""

from __future__ import annotations

from types import MethodType

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel


def _forward(layer: nn.Module, *arguments, **options):
    plain = MethodType(type(layer).forward, layer)
    if not torch.is_grad_enabled():
        return plain(*arguments, **options)
    return checkpoint(plain, *arguments, use_reentrant=False, **options)


def checkpoint_layers(model: PreTrainedModel) -> int:
    """Let every decoder layer of `model` compute its activations again in backward; returns how many there are.

    Raises `ValueError` for a decoder whose layers are not found.
    """
    layers = getattr(model.get_decoder(), "layers", None)
    if not isinstance(layers, nn.ModuleList):
        raise ValueError("policy.activation_checkpointing: this architecture's layers were not found; set it to false")
    for layer in layers:
        layer.forward = MethodType(_forward, layer)
    return len(layers)
