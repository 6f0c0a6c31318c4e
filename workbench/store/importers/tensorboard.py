"""TensorBoard event files, read by TensorBoard's own reader."""

from __future__ import annotations

from pathlib import Path

from workbench.store.importers.foreign import ForeignRun, merged, translated

_ALL = {"scalars": 0, "tensors": 0}  # TensorBoard's reader thins series out unless told to keep all of them


def find(source: Path) -> Path | None:
    """The folder that holds event files."""
    if "tfevents" in source.name:
        return source.parent
    found = next(iter(sorted(source.rglob("*tfevents*"))), None) if source.is_dir() else None
    return found.parent if found else None


def read(source: Path, rollouts: Path | None = None) -> ForeignRun:
    """Needs the package tensorboard (requirements-extras.txt). Raises `ValueError` where there are no scalars."""
    try:
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
        from tensorboard.util.tensor_util import make_ndarray
    except ImportError as error:
        message = "reading event files needs the package tensorboard; pip install -r requirements-extras.txt"
        raise ValueError(message) from error
    folder, run, rows = find(source), ForeignRun("tensorboard"), []
    events = EventAccumulator(str(folder), size_guidance=_ALL).Reload()
    for tag in events.Tags()["scalars"]:
        rows += [translated(event.step, {tag: event.value}) for event in events.Scalars(tag)]
    for tag in events.Tags()["tensors"]:
        for event in events.Tensors(tag):
            value = make_ndarray(event.tensor_proto)
            if value.size == 1 and value.dtype.kind in "fiu":
                rows.append(translated(event.step, {tag: float(value.reshape(()))}))
    run.metrics = merged(rows)
    if not run.metrics:
        raise ValueError(f"the event files in {folder} hold no scalars")
    return run
