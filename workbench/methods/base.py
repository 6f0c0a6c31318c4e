"""The seams of a method: a class with a name, typed parameters, the paper it comes from, and only the hooks it needs.

Every hook has a do-nothing default. A run lists its methods in order; each hook receives what the method before it
returned (plain composition). Hooks see tables, never the model. When they are called, and on what:

- the training prompts (`Table` with `id`, `text` and what `needs` asked for): `pool`, `candidates`, `select`,
  `temperature`;
- the rollout batch: `inject`, `rounds`, `accept`, `reward`, `baseline`, `advantage`, `critic_target`, `look`, `keep`;
- the optimiser mini-batch, before each update: `clip`, `mask`, `weight`, `mark`, in this order, each seeing the token
  columns of those before (`clip_low`, `clip_high`, `mask`, `weight`);
- slices of the mini-batch's token table, whole sequences at a time: `ratio`, `surrogate`, `regulariser`; they are
  differentiable in `logp` and `entropy`.

What a hook returns is a constant (nothing is differentiated through it), except from `ratio`, `surrogate` and
`regulariser`. Where many processes train together, every one of them calls the hooks with the tables of all, so there
is nothing to add up across them; a statistic over tokens or sequences goes through `workbench.methods.statistics`. So
no result depends on micro-batches, packing order or the number of processes.

`tokens` always carry `rollout_logp`, from `advantage` on `advantage`, and from `ratio` on `old_logp` and `entropy` of
the policy before the step's updates. A method whose other hooks read these two asks for them (`needs`), since the
trainer may learn them from its first forward pass only. More on request, see `NEEDS` in `terms.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ConfigDict, PrivateAttr
from torch import Tensor

from workbench.config import BUNDLES, METHODS
from workbench.methods.terms import EXCLUSIVE, CriticConfig, Progress
from workbench.tables import Rollouts, Table

if TYPE_CHECKING:
    from workbench.config import RunConfig


class Method(BaseModel):
    """Base of all methods. Fields are the parameters; private attributes are state, returned by `state_dict`."""

    model_config = ConfigDict(extra="forbid")
    name: ClassVar[str]
    paper: ClassVar[str]
    """arXiv id and equation or section"""

    _now: Progress = PrivateAttr(Progress(0, 1, 1, 1, 1))

    def begin(self, progress: Progress) -> None:
        """Called at the start of every rollout step and before every update; `self._now` holds it from then on."""
        self._now = progress

    def needs(self) -> set[str]:
        """Which of `terms.NEEDS` the method reads, as configured."""
        return set()

    def critic(self) -> CriticConfig | None:
        """The critic to train beside the policy; at most one method of a run has one."""
        return None

    def exclusive(self) -> set[str]:
        """Which of `terms.EXCLUSIVE` the method uses, as configured."""
        return {hook for hook in EXCLUSIVE if getattr(type(self), hook) is not getattr(Method, hook)}

    def check(self, config: RunConfig) -> None:
        """Raise `ValueError` if the method cannot act in this config."""

    def cautions(self, config: RunConfig) -> list[str]:
        """One sentence for each thing that works but is probably not meant: inert settings, departures from the
        paper."""
        return []

    def pool(self, prompts: Table, pool: Tensor) -> Tensor:
        """Mask [M] of the training prompts in play at this step."""
        return pool

    def candidates(self, count: int) -> int:
        """How many prompts to draw so that `count` are left after `select`."""
        return count

    def select(self, prompts: Table, chosen: Tensor) -> Tensor:
        """Rows [K] of the candidate prompts to roll out, out of the rows `chosen` [≥ K]."""
        return chosen

    def temperature(self, prompts: Table, temperature: Tensor) -> Tensor:
        """Sampling temperature per prompt [P]."""
        return temperature

    def inject(self, rollouts: Rollouts) -> dict[int, str]:
        """Responses to put in place of sampled ones: row of `sequences` -> text."""
        return {}

    def rounds(self) -> int:
        """How many times at most prompts are drawn and sampled to fill a batch with accepted groups."""
        return 1

    def accept(self, rollouts: Rollouts, accept: Tensor) -> Tensor:
        """Mask [S] of the sequences whose groups count towards a full batch; equal within a group."""
        return accept

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

    def critic_target(self, rollouts: Rollouts) -> Tensor | None:
        """What the critic is to give for each sampled token [N]; asked of the method that has one."""
        return None

    def look(self, rollouts: Rollouts) -> None:
        """The scored rollout batch with its advantages, before the step's updates: for controllers whose action at this
        step depends on it."""

    def clip(self, batch: Rollouts, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """(ε_low, ε_high), scalars or per token [N]; at most one method of a run gives them."""
        return low, high

    def mask(self, batch: Rollouts, mask: Tensor) -> Tensor:
        """Mask [N] of the tokens that take part in the loss, its denominator included."""
        return mask

    def weight(self, batch: Rollouts, weight: Tensor) -> Tensor:
        """Per-token weight [N] of the surrogate; a token of weight 0 stays in the denominator."""
        return weight

    def mark(self, batch: Rollouts) -> dict[str, Tensor]:
        """Further token columns [N], decided on the whole mini-batch, that this method's `ratio`, `surrogate` or
        `regulariser` read; named `<method>_<column>`. Controllers that act per update move here."""
        return {}

    def ratio(self, tokens: Table, logp: Tensor) -> Tensor | None:
        """Importance ratio per token [n] in place of exp(logp − old_logp); at most one method of a run gives it."""
        return None

    def surrogate(self, tokens: Table, ratio: Tensor, logp: Tensor) -> Tensor | None:
        """Per-token loss [n] in place of the PPO clip; at most one method of a run gives it."""
        return None

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
        return {key: value for key, value in (self.__pydantic_private__ or {}).items() if key != "_now"}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for key, value in state.items():
            setattr(self, key, value)


class Bundle(BaseModel):
    """A published recipe made of several methods: in a run's list its name stands for what `expand` returns."""

    model_config = ConfigDict(extra="forbid")
    name: ClassVar[str]
    paper: ClassVar[str]

    def expand(self) -> list[dict[str, Any]]:
        """Entries for `RunConfig.methods`."""
        raise NotImplementedError


def register(kind: type) -> type:
    """Class decorator: makes a method or bundle available to configs under its name."""
    if kind.name in METHODS or kind.name in BUNDLES:
        raise ValueError(f"two methods are called '{kind.name}'")
    (BUNDLES if issubclass(kind, Bundle) else METHODS)[kind.name] = kind
    return kind
