"""Checkpoints: a Hugging Face folder plus what an exact continuation needs. Safetensors and JSON only, no pickle."""

from __future__ import annotations

import errno
import json
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from workbench.store.files import remove, write_atomic
from workbench.store.layout import Layout, numbered
from workbench.training.trainer import Trainer

OPTIMISER, CRITIC, STATE = "optimiser.safetensors", "critic.safetensors", "state.json"


def save_checkpoint(layout: Layout, trainer: Trainer, step: int, keep: int) -> None:
    """Write checkpoints/<step>/ atomically and delete all but the newest `keep`.

    It holds the weights (or the adapters, as peft writes them) and tokenizer, the optimiser's moments, the critic if
    there is one, the methods' state, the number of updates and the place in the walk through the prompts. Random
    streams, prompt order and learning rate are functions of these.
    Raises `OSError` if the disk does not take it; the checkpoints before it stay.
    """

    def write(folder: Path) -> None:
        folder.mkdir()
        trainer.policy.save(folder)
        save_file(trainer.optimiser.state_tensors(), folder / OPTIMISER)
        if trainer.critic is not None:
            save_file(trainer.critic.state_tensors(), folder / CRITIC)
        state = {
            "step": step,
            "updates": trainer.optimiser.updates,
            "prompts": trainer.collector.walk.state_dict(),
            "methods": trainer.methods.state_dict(),
        }
        (folder / STATE).write_text(json.dumps(state))

    try:
        write_atomic(layout.checkpoint(step), write)
    except SafetensorError as error:  # the library wraps what the system said
        number = errno.ENOSPC if "No space left" in str(error) else errno.EIO
        raise OSError(number, f"checkpoint of step {step} could not be written: {error}") from error
    for paths in list(numbered(layout.checkpoints).values())[:-keep]:
        remove(paths[0])


def load_checkpoint(layout: Layout, trainer: Trainer, before: int | None = None) -> int:
    """Restore the newest checkpoint (of a step < `before`) into `trainer`; returns its step, 0 if there is none.

    Raises `ValueError` if a checkpoint does not fit the policy or the critic.
    """
    found = {step: paths for step, paths in numbered(layout.checkpoints).items() if before is None or step < before}
    if not found:
        return 0
    step, (folder, *_) = list(found.items())[-1]
    trainer.policy.restore(folder)
    trainer.engine.weights_changed()
    state = json.loads((folder / STATE).read_text())
    trainer.optimiser.load_state_tensors(load_file(folder / OPTIMISER), state["updates"])
    if trainer.critic is not None:
        trainer.critic.load_state_tensors(load_file(folder / CRITIC), state["updates"])
    trainer.collector.walk.load_state_dict(state["prompts"])
    trainer.methods.load_state_dict(state["methods"])
    return step
