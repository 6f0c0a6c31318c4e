"""Tensors over the network: a process group of the trainer and a vLLM server's workers, and one broadcast to them all.

NCCL between GPUs, gloo between CPUs. Both sides use this module, and neither needs what the other does besides.
"""

from __future__ import annotations

import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from workbench.rollout.layout import Entry, entries_of, size_of, views_of

MEETING = timedelta(minutes=2)
"""How long the two sides wait for each other to join."""
SENDING = timedelta(minutes=2)
"""How long a bucket may take before the other side is held to be gone."""
BUCKET_BYTES = 2**28
"""Tensors are sent together up to this size; a larger one is sent alone."""
GLANCE_S = 0.0005
GRACE_S = 10
"""How long a broken broadcast waits for the other side's own words, which say more."""


@dataclass
class Invitation:
    """Where the trainer waits for `size` - 1 workers, and what the group is to be made of."""

    address: str
    port: int
    size: int
    backend: str
    meeting: str


@dataclass
class Announcement:
    """What comes next in the group of `meeting`: the tensors, in their order."""

    meeting: str
    entries: list[Entry]


class Sender:
    """The trainer's end: it opens the meeting point and is rank 0.

    `towards` is the (host, port) of the server, which says by which of this machine's addresses the workers reach it.
    `invite` has the workers make their `Receiver`s; it returns when they have.
    """

    def __init__(
        self, towards: tuple[str, int], workers: int, device: torch.device, invite: Callable[[Invitation], object]
    ):
        self.device, self.meeting = device, secrets.token_hex(8)
        address = own_address(towards)
        self._store = dist.TCPStore(address, 0, is_master=True, timeout=MEETING, wait_for_workers=False)
        backend = "nccl" if device.type == "cuda" else "gloo"
        invitation = Invitation(address, self._store.port, workers + 1, backend, self.meeting)
        answer = _meanwhile(invite, invitation)
        try:
            self._group = _group(self._store, 0, invitation)
        except RuntimeError:
            _raise_if_failed(answer)  # it says why they did not come
            raise
        answer.result()

    def send(
        self,
        tensors: Mapping[str, Tensor],
        announce: Callable[[Announcement], object],
        dtype: torch.dtype | None = None,
    ) -> None:
        """Broadcast the tensors, in `dtype` or each in its own. `announce` has the workers take them by
        `Receiver.received`; it returns when they have. What it raises ends the sending for good."""
        entries = entries_of(tensors, dtype)
        answer = _meanwhile(announce, Announcement(self.meeting, entries))
        for bucket in buckets(entries):
            block = _block(bucket, self.device)
            for name, view in views_of(block, bucket):
                view.copy_(tensors[name])
            _finish(self._group.broadcast(block, 0), answer)
        answer.result()

    def close(self) -> None:
        """Leave the group; the other side is not waited for."""
        self._group.abort()
        del self._group  # gloo's connections close with it


class Receiver:
    """A worker's end, its rank `rank` ≥ 1; tensors come to `device`."""

    def __init__(self, invitation: Invitation, rank: int, device: torch.device):
        self.device, self.meeting = device, invitation.meeting
        store = dist.TCPStore(invitation.address, invitation.port, is_master=False, timeout=MEETING)
        self._group = _group(store, rank, invitation)

    def received(self, announcement: Announcement) -> Iterator[tuple[str, Tensor]]:
        """The tensors by name, as they come: views of memory that is this side's own. Raises `RuntimeError` when they
        are another trainer's than this one's."""
        if announcement.meeting != self.meeting:
            raise RuntimeError("another trainer has joined this server since")
        return self._received(announcement.entries)

    def _received(self, entries: list[Entry]) -> Iterator[tuple[str, Tensor]]:
        for bucket in buckets(entries):
            block = _block(bucket, self.device)
            self._group.broadcast(block, 0).wait()
            yield from views_of(block, bucket)

    def close(self) -> None:
        """Leave the group; the other side is not waited for."""
        self._group.abort()
        del self._group  # gloo's connections close with it


def buckets(entries: Sequence[Entry]) -> Iterator[list[Entry]]:
    """The entries in their order, as many together as `BUCKET_BYTES` holds."""
    held = []
    for entry in entries:
        if held and size_of([*held, entry]) > BUCKET_BYTES:
            yield held
            held = []
        held.append(entry)
    if held:
        yield held


def _block(bucket: list[Entry], device: torch.device) -> Tensor:
    return torch.empty(size_of(bucket), dtype=torch.uint8, device=device)


def own_address(towards: tuple[str, int]) -> str:
    """The address of this machine that a connection to `towards` comes from."""
    with socket.create_connection(towards, timeout=30) as connection:
        return connection.getsockname()[0]


def _group(store: dist.TCPStore, rank: int, invitation: Invitation) -> dist.ProcessGroup:
    """Beside the default group, which each side may have for itself."""
    if invitation.backend == "nccl":
        options = dist.ProcessGroupNCCL.Options()
        options._timeout = SENDING
        return dist.ProcessGroupNCCL(store, rank, invitation.size, options)
    options = dist.ProcessGroupGloo._Options()
    options._timeout = SENDING
    own = own_address((invitation.address, invitation.port))
    options._devices = [dist.ProcessGroupGloo.create_device(hostname=own)]
    return dist.ProcessGroupGloo(store, rank, invitation.size, options)


def _meanwhile(call: Callable[[object], object], argument: object) -> Future:
    """The answer of a call that runs beside; a process that ends does not wait for it."""
    answer = Future()

    def run() -> None:
        try:
            answer.set_result(call(argument))
        except BaseException as error:
            answer.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return answer


def _finish(work: dist.Work, answer: Future) -> None:
    """Wait for the work, unless the other side's answer says before that it will not take part."""
    while not work.is_completed():
        _raise_if_failed(answer)
        time.sleep(GLANCE_S)
    try:
        work.wait()
    except RuntimeError:
        wait([answer], GRACE_S)
        _raise_if_failed(answer)
        raise


def _raise_if_failed(answer: Future) -> None:
    if answer.done():
        answer.result()
