"""Grids of real runs on a Ray cluster of two nodes, one of which is killed mid-way, and through submitit."""

import json
import os
import threading
import time
from pathlib import Path

import pytest

from workbench.study.executors import Resources, SlurmCell, _unpack
from workbench.study.grid import make_grid, read_grid
from workbench.study.running import execute, plan

pytestmark = pytest.mark.cluster
FIELDS = ["evaluation.sets=[]", "storage.checkpoint_every=1", "rollout.prompts=4", "training.updates_per_rollout=1"]


def grid_of(folder, *fields):
    return make_grid(read_grid(None, [*FIELDS, *fields], {"preset": "smoke"}), folder)


def states(grid):
    return [stands.state for stands in grid.standings()]


def steps_logged(cell):
    return [json.loads(line)["step"] for line in (cell.output / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture
def cluster():
    pytest.importorskip("ray", reason="ray is not installed (requirements-extras.txt)")
    from ray.cluster_utils import Cluster

    for name in ("USAGE_STATS_ENABLED", "enable_metrics_collection", "enable_worker_prestart"):
        os.environ[f"RAY_{name}"] = "0"
    cluster = Cluster()
    started(cluster, num_cpus=0, include_dashboard=False)
    yield cluster
    import ray

    ray.shutdown()
    cluster.shutdown()


def started(cluster, **arguments):
    """A node of the cluster; on a busy machine ray may take more than its own 30 seconds, so it is tried again."""
    for left in (2, 1, 0):
        try:
            return cluster.add_node(object_store_memory=100 * 2**20, **arguments)
        except Exception as error:  # ray raises a bare Exception
            if "timed out during startup" not in str(error) or not left:
                raise
    return None


def test_a_lost_node_loses_nothing(cluster, tmp_path):
    first, _ = started(cluster, num_cpus=1), started(cluster, num_cpus=1)
    grid, seen, lines = grid_of(tmp_path, "seed=0,1,2", "training.steps=25"), [], []
    process = first.all_processes["raylet"][0].process.pid

    def kill_the_node_once_both_are_at_work():
        while sum(2 <= (stands.step or 0) < 15 for stands in grid.standings()) < 2:
            time.sleep(0.1)
        seen.append(dict(zip(states(grid), grid.standings(), strict=False)))
        cluster.remove_node(first, allow_graceful=False)

    killer = threading.Thread(target=kill_the_node_once_both_are_at_work, daemon=True)
    killer.start()
    assert execute(plan(grid), "ray", log=lines.append, address=cluster.address)
    killer.join(10)
    assert seen and "queued" in seen[0] and "running" in seen[0] and not Path(f"/proc/{process}").exists()
    assert states(grid) == ["done"] * 3 and len(lines) == 3
    for cell in grid.cells:
        assert steps_logged(cell) == list(range(1, 26))
    logs = [(grid.place.of(cell) / "log.txt").read_text() for cell in grid.cells]
    continued = [text for text in logs if text.count(": step ") == 2]  # each start says from which step
    assert len(continued) == 1 and ": step 0 of 25" in continued[0]
    assert int(continued[0].rsplit(": step ", 1)[1].split()[0]) >= 2, "the lost node's run went on from its checkpoint"


def test_results_come_back_where_nodes_share_no_storage(cluster, tmp_path):
    started(cluster, num_cpus=1)
    grid = grid_of(tmp_path, "seed=5", "training.steps=2")
    assert execute(plan(grid), "ray", log=lambda line: None, address=cluster.address, bring_back=True)
    assert steps_logged(grid.cells[0]) == [1, 2] and (grid.place.of(grid.cells[0]) / "log.txt").exists()


def test_an_archive_cannot_write_elsewhere(tmp_path):
    import io
    import tarfile

    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        info = tarfile.TarInfo("0/../../escaped")
        tar.addfile(info, io.BytesIO(b""))
    with pytest.raises(tarfile.FilterError):
        _unpack(archive.getvalue(), [tmp_path / "target"])


def test_submitit_executes_a_grid_and_requeues_a_cell_as_it_was(tmp_path):
    submitit = pytest.importorskip("submitit", reason="submitit is not installed (requirements-extras.txt)")
    grid = grid_of(tmp_path, "seed=0,1", "training.steps=2")
    assert execute(plan(grid), "slurm", Resources(jobs=2), log=lambda line: None, cluster="local")
    assert states(grid) == ["done"] * 2
    again = SlurmCell().checkpoint(grid.cells[0], grid.place)
    assert isinstance(again, submitit.helpers.DelayedSubmission) and again.args == (grid.cells[0], grid.place)
