"""Checkpoints: a Hugging Face folder plus what an exact continuation needs. Safetensors and JSON only, no pickle.

One format for any number of ranks: a run may be continued by more or by fewer of them.
"""

from __future__ import annotations

import json
from pathlib import Path

from workbench import ranks
from workbench.policy.tensor_files import read_tensors, tensor_shapes, write_tensors
from workbench.store.files import partial_path, remove, write_atomic
from workbench.store.layout import Layout, numbered
from workbench.training.trainer import Trainer

OPTIMISER, CRITIC, STATE = "optimiser.safetensors", "critic.safetensors", "state.json"


def save_checkpoint(layout: Layout, trainer: Trainer, step: int, keep: int) -> None:
    """Write checkpoints/<step>/ atomically and delete all but the newest `keep`. All ranks do it together.

    It holds the weights (or the adapters, as peft writes them) and tokenizer, the optimiser's moments, the critic if
    there is one, the methods' state, the number of updates and the place in the walk through the prompts. Random
    streams, prompt order and learning rate are functions of these.
    Raises `OSError` if the disk does not take it; the checkpoints before it stay.
    """

    def write(folder: Path) -> None:
        trainer.policy.save(folder)
        write_tensors(folder / OPTIMISER, trainer.optimiser.state_tensors())
        if trainer.critic is not None:
            trainer.critic.save(folder / CRITIC)
        state = {
            "step": step,
            "updates": trainer.optimiser.updates,
            "prompts": trainer.collector.walk.state_dict(),
            "methods": trainer.methods.state_dict(),
        }
        if ranks.is_first():
            (folder / STATE).write_text(json.dumps(state))

    path = layout.checkpoint(step)
    with ranks.as_one():
        if not ranks.is_first():
            write(partial_path(path))
            return
        write_atomic(path, write)
        for paths in list(numbered(layout.checkpoints).values())[:-keep]:
            remove(paths[0])


def load_checkpoint(layout: Layout, trainer: Trainer, before: int | None = None) -> int:
    """Restore the newest checkpoint (of a step < `before`) into `trainer`; returns its step, 0 if there is none.

    Raises `ValueError` if a checkpoint does not fit the policy or the critic.
    """
    steps = [step for step in numbered(layout.checkpoints) if before is None or step < before]
    step = ranks.from_first(max(steps, default=0))
    if step == 0:
        return 0
    folder = layout.checkpoint(step)
    trainer.policy.restore(folder)
    trainer.engine.weights_changed()
    state = json.loads((folder / STATE).read_text())
    moments = trainer.optimiser.blank_state(tensor_shapes(folder / OPTIMISER))
    read_tensors(folder / OPTIMISER, moments)
    trainer.optimiser.load_state_tensors(moments, state["updates"])
    if trainer.critic is not None:
        trainer.critic.restore(folder / CRITIC, state["updates"])
    trainer.collector.walk.load_state_dict(state["prompts"])
    trainer.methods.load_state_dict(state["methods"])
    return step
