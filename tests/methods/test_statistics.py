"""Batch statistics are the same on one device and on two."""

import math

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from workbench.methods import statistics

VALUES = torch.arange(7.0).square()
MASK = VALUES > 3
SPLIT = 3


def describe(values, mask):
    return {
        "total": statistics.total(values).item(),
        "mean": statistics.mean(values).item(),
        "masked": statistics.mean(values, mask).item(),
        "gathered": statistics.gathered(values).tolist(),
    }


def one_rank(rank, path, results):
    dist.init_process_group("gloo", init_method=f"file://{path}", rank=rank, world_size=2)
    mine = slice(0, SPLIT) if rank == 0 else slice(SPLIT, None)
    results[rank] = describe(VALUES[mine], MASK[mine])
    dist.destroy_process_group()


def test_two_devices_see_what_one_sees(tmp_path):
    alone = describe(VALUES, MASK)
    assert alone["total"] == VALUES.sum() and alone["masked"] == VALUES[MASK].mean()
    with mp.Manager() as manager:
        results = manager.dict()
        mp.spawn(one_rank, args=(tmp_path / "rendezvous", results), nprocs=2)
        assert results[0] == results[1] == alone


def test_the_mean_of_nothing_is_nan():
    assert math.isnan(statistics.mean(VALUES, VALUES < 0).item())
