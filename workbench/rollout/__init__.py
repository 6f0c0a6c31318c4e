"""Sampling engines behind one interface: prompts in, `Rollouts` (the two tables) out."""

from workbench.rollout.native import NativeEngine
from workbench.rollout.streams import Stream

__all__ = ["NativeEngine", "Stream"]
