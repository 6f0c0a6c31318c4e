"""Named tensors as one safetensors file, written and read by all ranks together (torch's distributed checkpoint).

The file is the same for any number of ranks: each writes its part of a divided tensor, and the parts are put together;
each reads no more than its part. All ranks must see the same folder.
"""

from __future__ import annotations

import errno
import shutil
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import torch.distributed.checkpoint as dcp
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.distributed.checkpoint import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.api import CheckpointException

from workbench import ranks

PARTS = ".parts"


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write `tensors`, each of one dimension at least, to the file `path`. Raises `OSError` if the disk does not take
    it."""
    if scalars := [name for name, tensor in tensors.items() if tensor.dim() == 0]:
        raise ValueError(f"{scalars} have no dimension, and torch would put 0 in their place; make them tensors of one")
    many, scratch = ranks.count() > 1, path.with_name(path.name + PARTS)
    if tensors:
        writer = HuggingFaceStorageWriter(str(scratch), save_distributed=many, enable_consolidation=many)
        _together(lambda: dcp.save(dict(tensors), storage_writer=writer, no_dist=not many), path)
    with ranks.as_one():
        if not ranks.is_first():
            return
        if not tensors:
            save_file({}, path)
            return
        (made,) = scratch.glob("*.safetensors")
        made.rename(path)
        shutil.rmtree(scratch)


def read_tensors(path: Path, into: Mapping[str, Tensor]) -> None:
    """Fill `into` with the tensors of the same names in the file `path`. Raises `ValueError` if names or shapes
    differ."""
    found, wanted = tensor_shapes(path), {name: tuple(tensor.shape) for name, tensor in into.items()}
    if found != wanted:
        missing, unexpected = sorted(wanted.keys() - found.keys()), sorted(found.keys() - wanted.keys())
        other = sorted(name for name in found.keys() & wanted.keys() if found[name] != wanted[name])
        raise ValueError(f"{path} does not fit (missing {missing}, unexpected {unexpected}, of another shape {other})")
    reader = HuggingFaceStorageReader(str(path.parent))
    if into:
        _together(lambda: dcp.load(dict(into), storage_reader=reader, no_dist=ranks.count() == 1), path)


def tensor_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Shapes of the tensors in the file `path`, by name."""
    with safe_open(path, "pt") as file:
        return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118


def _together(call: Callable[[], None], path: Path) -> None:
    """Run a checkpoint operation of all ranks; what it raises is what went wrong on the first rank that failed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that a single process is a single process
            call()
    except CheckpointException as error:
        cause = error.failures[min(error.failures)][0]
        if isinstance(cause, SafetensorError):  # the library wraps what the system said
            number = errno.ENOSPC if "No space left" in str(cause) else errno.EIO
            raise OSError(number, f"{path} could not be written or read: {cause}") from error
        raise cause from error
