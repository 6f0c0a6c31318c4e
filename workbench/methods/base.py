"""The seams of a method: a class with a name, typed parameters, the paper it comes from, and only the hooks it needs.

Every hook has a do-nothing default. A run lists its methods in order; each hook receives what the method before it
returned (plain composition). Hooks see the two tables, never the model. Three rules:

- `keep`, `advantage`, `clip` and `weight` are called on whole batches (the rollout batch, or the optimiser mini-batch),
  never on a micro-batch, and return constants: nothing is differentiated through them.
- `surrogate` and `regulariser` are element-wise in the tokens and differentiable in `logp` and `entropy`; they are
  called on parts of the mini-batch.
- A statistic over tokens or sequences goes through `workbench.methods.statistics`, which spans all devices.

`tokens` always carries `advantage`, `old_logp`, `rollout_logp` and `entropy` (of the policy before the step's updates).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ConfigDict
from torch import Tensor

from workbench.config import METHODS
from workbench.tables import Rollouts, Table

if TYPE_CHECKING:
    from workbench.config import RunConfig


class Method(BaseModel):
    """Base of all methods. Fields are the parameters; private attributes are state, returned by `state_dict`."""

    model_config = ConfigDict(extra="forbid")
    name: ClassVar[str]
    paper: ClassVar[str]
    """arXiv id and equation or section"""

    def check(self, config: RunConfig) -> None:
        """Raise `ValueError` if the method cannot act in this config."""

    def select(self, candidates: list, step: int) -> list:
        """Candidate prompts -> the prompts to roll out."""
        return candidates

    def temperature(self, prompts: list, temperature: Tensor) -> Tensor:
        """Sampling temperature per prompt [P]."""
        return temperature

    def reward(self, rollouts: Rollouts, reward: Tensor) -> Tensor:
        """Rewards [S] before normalisation."""
        return reward

    def keep(self, rollouts: Rollouts, keep: Tensor) -> Tensor:
        """Mask [S] of the sequences that stay in the update."""
        return keep

    def baseline(self, rollouts: Rollouts) -> Tensor | None:
        """Sequence advantages [S]; exactly one method of a run gives them."""
        return None

    def advantage(self, rollouts: Rollouts, advantage: Tensor) -> Tensor:
        """Token advantages [N]."""
        return advantage

    def clip(self, tokens: Table, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """(ε_low, ε_high), scalars or per token [N]."""
        return low, high

    def surrogate(self, tokens: Table, logp: Tensor, low: Tensor, high: Tensor) -> Tensor | None:
        """Per-token loss [n] in place of the PPO clip; at most one method of a run gives it."""
        return None

    def weight(self, tokens: Table, weight: Tensor) -> Tensor:
        """Per-token loss weight [N], a constant."""
        return weight

    def regulariser(self, tokens: Table, logp: Tensor, entropy: Tensor) -> Tensor | None:
        """Per-token extra loss [n], differentiable in logp and entropy; None for nothing."""
        return None

    def observe(self, measures: dict[str, float]) -> None:
        """The step's measures, once all its updates are done; updates the controller's state."""

    def measures(self) -> dict[str, float]:
        """What the method logs of itself, under `method/<name>/…`, as it was during the step."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """JSON-serialisable state; checkpointed with the run."""
        return dict(self.__pydantic_private__ or {})

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for key, value in state.items():
            setattr(self, key, value)


def register(method: type[Method]) -> type[Method]:
    """Class decorator: makes the method available to configs under its name."""
    if method.name in METHODS:
        raise ValueError(f"two methods are called '{method.name}'")
    METHODS[method.name] = method
    return method
