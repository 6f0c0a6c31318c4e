"""Sampling engines behind one interface: prompts in, `Rollouts` (the two tables) out."""

from workbench import ranks
from workbench.config import RolloutConfig
from workbench.policy.model import Policy
from workbench.rollout.native import NativeEngine
from workbench.rollout.ranked import Engine, RankedEngine
from workbench.rollout.streams import Stream
from workbench.rollout.vllm import EngineDied, VllmEngine
from workbench.rollout.vllm_server import VllmServerEngine


def make_engine(config: RolloutConfig, policy: Policy) -> Engine:
    """The engine that `config` names, sampling from `policy`; on every rank one. Raises `ValueError` if it is not
    installed, or wants devices that are the other ranks'."""
    if config.engine == "vllm" and config.vllm.server:
        return shared(VllmServerEngine(policy, config.vllm))
    if config.engine == "vllm" and config.vllm.tensor_parallel > 1 and ranks.count() > 1:
        raise ValueError(
            f"rollout.vllm.tensor_parallel {config.vllm.tensor_parallel} would take the devices of other ranks, each "
            "of which has a vLLM of its own; set it to 1, or train with one process"
        )
    return shared(VllmEngine(policy, config.vllm) if config.engine == "vllm" else NativeEngine(policy))


def shared(engine: Engine) -> Engine:
    """`engine`, the prompts divided among the ranks."""
    return engine if ranks.count() == 1 else RankedEngine(engine)


__all__ = ["Engine", "EngineDied", "NativeEngine", "RankedEngine", "Stream", "VllmEngine", "make_engine", "shared"]
