"""Many processes as one. Every rank holds the same tables and takes the same decisions; what costs time (sampling,
verifying, forward and backward passes) is divided among them, and what they made is put together again on all.

So methods and metrics never meet a part of a batch: they see on many ranks what they see on one. With a single process
everything here is the identity.
"""

from __future__ import annotations

import os
import pickle
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from workbench.tables import Table

PATIENCE = timedelta(minutes=60)
"""How long a rank waits for the others in one operation: longer than any evaluation of one, shorter than a weekend."""
_store: dist.Store | None = None
_meeting = ""


class RankLost(RuntimeError):
    """Another rank has ended, or cannot be reached any more."""


def count() -> int:
    """Number of processes that train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def number() -> int:
    """This process's number among them, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def is_first() -> bool:
    """Whether this process is the one that writes."""
    return number() == 0


def launched() -> int:
    """Number of processes that torchrun has started together with this one; 1 without torchrun."""
    return int(os.environ["WORLD_SIZE"]) if dist.is_torchelastic_launched() else 1


def join() -> None:
    """Become one of the processes torchrun started; does nothing in a process of its own.

    Raises `ValueError` if this machine has fewer GPUs than processes.
    """
    if launched() == 1 or dist.is_initialized():
        return
    if torch.cuda.is_available():
        place, here = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if int(os.environ["LOCAL_WORLD_SIZE"]) > here:
            raise ValueError(
                f"torchrun started {os.environ['LOCAL_WORLD_SIZE']} processes on a machine of {here} GPUs; lower "
                "--nproc-per-node"
            )
        torch.cuda.set_device(place)
    global _store, _meeting
    found, rank, size = next(dist.rendezvous("env://", timeout=PATIENCE))
    _store = _of_this_attempt(found)
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, store=_store, rank=rank, world_size=size, timeout=PATIENCE)
    _meeting = from_first(uuid.uuid4().hex)


def _of_this_attempt(found: dist.Store) -> dist.Store:
    """The part of the store that belongs to these processes: before them torchrun may have started others on it, whose
    addresses no one answers at. Several nodes count their attempts apart, so only one can be told by the count."""
    alone = os.environ.get("GROUP_WORLD_SIZE") == "1"
    return dist.PrefixStore(f"attempt {os.environ['TORCHELASTIC_RESTART_COUNT']}", found) if alone else found


def store() -> dist.Store | None:
    """A connection of its own to the store through which `join` found the others; None without one.

    Its keys are those of these processes: ones that torchrun started before them may have used the same store.
    """
    return None if _store is None else dist.PrefixStore(_meeting, _store.clone())


def leave() -> None:
    """Undo `join`."""
    if dist.is_initialized():
        dist.destroy_process_group()


def environment_alone() -> dict[str, str]:
    """The environment for a child process that is no rank and sees this rank's GPU alone."""
    torchrun = ("TORCHELASTIC_", "GROUP_", "ROLE_", "LOCAL_", "MASTER_", "RANK", "WORLD_SIZE")
    kept = {name: value for name, value in os.environ.items() if count() == 1 or not name.startswith(torchrun)}
    if count() > 1 and torch.cuda.is_available():
        given, own = os.environ.get("CUDA_VISIBLE_DEVICES"), torch.cuda.current_device()
        kept["CUDA_VISIBLE_DEVICES"] = given.split(",")[own] if given else str(own)
    return kept


def share(items: int) -> range:
    """Which of `items` things are this rank's: consecutive, as even as can be, in the order of the ranks."""
    return range(items * number() // count(), items * (number() + 1) // count())


def gathered(columns: dict[str, Tensor]) -> dict[str, Tensor]:
    """All ranks' columns [n_rank, …] of one table, in the order of the ranks [Σn, …]. Their names, dtypes and further
    dimensions are the same on all."""
    if count() == 1 or not columns:
        return columns
    sizes = gathered_list([len(next(iter(columns.values())))])
    return {name: _gathered(values, sizes) for name, values in columns.items()}


def _gathered(values: Tensor, sizes: list[int]) -> Tensor:
    # Backends want equal sizes: pad, gather, cut. And no bool.
    padded = torch.cat([values, values.new_zeros(max(sizes) - len(values), *values.shape[1:])])
    sent = padded.view(torch.uint8) if padded.dtype == torch.bool else padded
    parts = [torch.empty_like(sent) for _ in sizes]
    dist.all_gather(parts, sent.contiguous())
    return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)]).view(values.dtype)


def gathered_list(values: list) -> list:
    """All ranks' lists, one after the other."""
    if count() == 1:
        return values
    parts: list[Any] = [None] * count()
    dist.all_gather_object(parts, values)
    return [value for part in parts for value in part]


def gathered_table(table: Table) -> Table:
    """The rows of all ranks' tables, which have the same columns."""
    columns: dict[str, Any] = gathered({name: column for name, column in table.items() if isinstance(column, Tensor)})
    columns |= {name: gathered_list(column) for name, column in table.items() if isinstance(column, list)}
    return Table(**{name: columns[name] for name in table})


def from_first(value: Any) -> Any:
    """The first rank's value, on all ranks.

    For what steers the run: rounding on a GPU may differ from rank to rank, and ranks that disagree wait forever.
    A tensor comes to the device that this rank's own is on.
    """
    if count() == 1:
        return value
    carried = [value.cpu() if isinstance(value, Tensor) else value]
    dist.broadcast_object_list(carried, src=0)
    return carried[0].to(value.device) if isinstance(value, Tensor) else carried[0]


def any_of(flag: bool) -> bool:
    """Whether it holds on any rank."""
    return any(gathered_list([flag]))


@contextmanager
def as_one() -> Iterator[None]:
    """What fails on one rank inside fails on all of them, with the same exception. Inside, ranks work alone, or fail
    together."""
    if count() == 1:
        yield
        return
    failure = None
    try:
        yield
    except Exception as error:
        failure = error
    failures = [found for found in gathered_list([_portable(failure)]) if found is not None]
    if failure is not None:
        raise failure
    if failures:
        raise failures[0]


@contextmanager
def in_contact() -> Iterator[None]:
    """Raises `RankLost` out of what the libraries of communication say when a rank is gone."""
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and "gloo" not in str(error):
            raise
        said = str(error).splitlines()[0].split(". ")[0]
        raise RankLost(f"another rank has ended; train the same config to continue ({said})") from error


def _portable(error: Exception | None) -> Exception | None:
    try:
        return pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"rank {number()}: {type(error).__name__}: {error}")
