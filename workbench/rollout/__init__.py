"""Sampling engines behind one interface: prompts in, `Rollouts` (the two tables) out."""

from workbench.config import RolloutConfig
from workbench.policy.model import Policy
from workbench.rollout.native import NativeEngine
from workbench.rollout.streams import Stream
from workbench.rollout.vllm import EngineDied, VllmEngine

Engine = NativeEngine | VllmEngine


def make_engine(config: RolloutConfig, policy: Policy) -> Engine:
    """The engine that `config` names, sampling from `policy`. Raises `ValueError` if it is not installed."""
    return VllmEngine(policy, config.vllm) if config.engine == "vllm" else NativeEngine(policy)


__all__ = ["Engine", "EngineDied", "NativeEngine", "Stream", "VllmEngine", "make_engine"]
