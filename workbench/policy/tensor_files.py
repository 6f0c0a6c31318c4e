"""Named tensors as one safetensors file, written and read by all ranks together (torch's distributed checkpoint).

The file is the same for any number of ranks: each writes its part of a divided tensor, and the parts are put together;
each reads no more than its part. All ranks must see the same folder.
"""

from __future__ import annotations

import errno
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch.distributed.checkpoint as dcp
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.distributed.checkpoint import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.api import CheckpointException

from workbench import ranks

FORMAT = {"format": "pt"}
"""What transformers asks a file to say of itself."""
PARTS = ".parts"


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write `tensors`, each of one dimension at least, to the file `path`. Raises `OSError` if the disk does not take
    it."""
    if scalars := [name for name, tensor in tensors.items() if tensor.dim() == 0]:
        raise ValueError(f"{scalars} have no dimension, and torch would put 0 in their place; make them tensors of one")
    if ranks.count() == 1 or not tensors:
        if ranks.is_first():
            with _errors_of_the_system(path):
                save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, FORMAT)
        return
    scratch = path.with_name(path.name + PARTS)
    writer = HuggingFaceStorageWriter(str(scratch), save_distributed=True, enable_consolidation=True)
    with _errors_of_the_system(path):
        dcp.save(dict(tensors), storage_writer=writer)
    with ranks.as_one():
        if ranks.is_first():
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
    if into:
        with _errors_of_the_system(path), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that a single process is a single process
            reader = HuggingFaceStorageReader(str(path.parent))
            dcp.load(dict(into), storage_reader=reader, no_dist=ranks.count() == 1)


def tensor_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Shapes of the tensors in the file `path`, by name."""
    with safe_open(path, "pt") as file:
        return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118


@contextmanager
def _errors_of_the_system(path: Path) -> Iterator[None]:
    """Raise what went wrong in the file system, on the first rank where it did, out of what libraries make of it."""
    try:
        yield
    except CheckpointException as error:
        raise _plain(error.failures[min(error.failures)][0], path) from error
    except SafetensorError as error:
        raise _plain(error, path) from error


def _plain(error: BaseException, path: Path) -> BaseException:
    if not isinstance(error, SafetensorError):
        return error
    number = errno.ENOSPC if "No space left" in str(error) else errno.EIO
    return OSError(number, f"{path} could not be written or read: {error}")
