"""The shape of a case."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Case:
    """How the generic tests use one method.

    acting: parameters at which it changes the loss, a selection or the gradient of the made-up batch of
    `tests/methods/made_up.py`; neutral: parameters at which a run is bit-identical to one with `without` alone, a
    baseline to one with grpo in its place (None: there are none, since it replaces the objective); without: the other
    methods of the run, () for a baseline; config: what the method asks of the config; observes: measures that move its
    state.
    """

    acting: dict = field(default_factory=dict)
    neutral: dict | None = None
    without: tuple = ("grpo",)
    config: dict = field(default_factory=dict)
    observes: tuple[dict, ...] = ({"entropy/mean": 0.3}, {"entropy/mean": 0.25}, {"entropy/mean": 0.1})
