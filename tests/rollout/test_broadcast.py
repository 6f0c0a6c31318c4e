"""Tensors from a trainer to workers over the network: the same bits arrive, and what goes wrong is told at once."""

import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from workbench.rollout import broadcast
from workbench.rollout.broadcast import Receiver, Sender, buckets

CPU = torch.device("cpu")


@pytest.fixture
def listening():
    """Something that answers at an address, as the server's API does."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()


@pytest.fixture
def ends(listening):
    """A sender and its two receivers."""
    receivers = {}

    def invite(invitation):
        with ThreadPoolExecutor(2) as pool:
            joined = pool.map(lambda rank: (rank, Receiver(invitation, rank, CPU)), (1, 2))
            receivers.update(joined)

    sender = Sender(listening, 2, CPU, invite)
    yield sender, receivers
    for end in (*receivers.values(), sender):  # a sender that still sends would wait for them
        end.close()


def deliver(ends, tensors, dtype=None):
    """What each receiver got."""
    sender, receivers = ends
    got = {}

    def announce(announcement):
        with ThreadPoolExecutor(2) as pool:
            got.update(
                zip(receivers, pool.map(lambda r: dict(r.received(announcement)), receivers.values()), strict=True)
            )

    sender.send(tensors, announce, dtype)
    return got


def mixed():
    generator = torch.Generator().manual_seed(1)
    return {
        "matrix": torch.randn(33, 7, generator=generator),
        "half": torch.randn(5, generator=generator).half(),
        "transposed": torch.randn(6, 4, generator=generator).T,
        "number": torch.tensor(3.0, dtype=torch.float64),
        "none": torch.empty(0, 3),
        "bytes": torch.arange(9, dtype=torch.uint8),
        "large": torch.randn(1000, generator=generator),
    }


@pytest.mark.parametrize("limit", [1, 300, 2**28])
def test_every_worker_gets_the_same_bits_in_buckets_of_any_size(ends, monkeypatch, limit):
    monkeypatch.setattr(broadcast, "BUCKET_BYTES", limit)
    sent = mixed()
    for _ in range(2):  # an update follows another
        got = deliver(ends, sent)
        assert set(got) == {1, 2}
        for tensors in got.values():
            assert list(tensors) == list(sent)
            assert all(torch.equal(tensors[n], sent[n]) and tensors[n].dtype == sent[n].dtype for n in sent)


def test_weights_go_over_in_the_samplers_dtype(ends):
    weights = {"weight": torch.randn(8, 8), "bias": torch.randn(8)}
    for tensors in deliver(ends, weights, torch.bfloat16).values():
        assert all(torch.equal(tensors[name], weights[name].bfloat16()) for name in weights)


def test_buckets_hold_as_many_as_fit_in_order(monkeypatch):
    monkeypatch.setattr(broadcast, "BUCKET_BYTES", 128)
    entries = [("a", "float32", [16]), ("b", "uint8", [1]), ("c", "float32", [100]), ("d", "float32", [1])]
    assert [[name for name, _, _ in bucket] for bucket in buckets(entries)] == [["a", "b"], ["c"], ["d"]]
    assert list(buckets([])) == []


def test_a_refusal_ends_the_sending_at_once(ends):
    sender, _ = ends

    def refuse(announcement):
        raise RuntimeError("not today")

    start = time.monotonic()
    with pytest.raises(RuntimeError, match="not today"):
        sender.send(mixed(), refuse)
    assert time.monotonic() - start < broadcast.SENDING.total_seconds() / 10


def test_a_worker_that_dies_is_noticed(ends, monkeypatch):
    monkeypatch.setattr(broadcast, "GRACE_S", 0.1)
    sender, receivers = ends
    release = threading.Event()

    def die(announcement):
        receivers.pop(1).close()
        release.wait(60)  # its answer never comes by itself

    with pytest.raises(RuntimeError):
        sender.send({"large": torch.randn(2**22)}, die)
    release.set()


def test_tensors_of_another_trainer_are_refused(ends, listening):
    _, receivers = ends
    with pytest.raises(RuntimeError, match="another trainer has joined"):
        receivers[1].received(broadcast.Announcement("elsewhere", []))


def test_workers_that_cannot_join_are_told(listening, monkeypatch):
    def invite(invitation):
        raise RuntimeError("no room")

    monkeypatch.setattr(broadcast, "MEETING", broadcast.timedelta(seconds=2))
    monkeypatch.setattr(broadcast, "SENDING", broadcast.timedelta(seconds=2))
    with pytest.raises(RuntimeError, match="no room"):
        Sender(listening, 1, CPU, invite)
