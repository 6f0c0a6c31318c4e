"""A grid of real runs through a real Slurm of one node, started here where its programs are installed."""

import os
import shutil
import socket
import subprocess
import threading
import time

import pytest

from tests.study.test_clusters import states, steps_logged
from workbench.study.executors import Resources
from workbench.study.grid import make_grid, read_grid
from workbench.study.running import execute, plan

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(
        os.getuid() != 0 or not all(map(shutil.which, ("munged", "slurmctld", "slurmd"))),
        reason="no root, or no Slurm (apt-get install munge slurmctld slurmd slurm-client)",
    ),
]
FIELDS = ["evaluation.sets=[]", "rollout.prompts=4", "training.updates_per_rollout=1", "storage.checkpoint_every=1000"]
SLURM = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldPort={controller}
SlurmdPort={node}
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
MpiDefault=none
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=all Nodes={host} Default=YES State=UP
"""


def free_port():
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return held.getsockname()[1]


@pytest.fixture
def slurm(monkeypatch, tmp_path_factory):
    """A controller, a node and munge, of a folder of their own."""
    folder = tmp_path_factory.mktemp("slurm")
    for name in ("state", "spool"):
        (folder / name).mkdir()
    for place in (folder, *list(folder.parents)[:2]):
        place.chmod(0o755)  # munge refuses folders it deems private, and others it deems open
    (folder / "key").write_bytes(os.urandom(1024))
    (folder / "key").chmod(0o400)
    text = SLURM.format(host=socket.gethostname(), folder=folder, controller=free_port(), node=free_port())
    (folder / "slurm.conf").write_text(text)
    monkeypatch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
    files = [("key", "key"), ("seed", "seed"), ("log", "munge.log"), ("pid", "munge.pid")]
    munge = ["munged", "--force", "--foreground", f"--socket={folder}/munge.socket"]
    munge += [f"--{name}-file={folder}/{file}" for name, file in files]
    daemons = []
    try:
        for command in (munge, ["slurmctld", "-D"], ["slurmd", "-D"]):
            with (folder / f"{command[0]}.out").open("w") as out:
                daemons.append(subprocess.Popen(command, stdout=out, stderr=out))
            time.sleep(2)
        until(lambda: "idle" in said("sinfo", "-h", "-o", "%T"), 60)
        yield
    finally:
        for daemon in reversed(daemons):
            daemon.terminate()
            daemon.wait(20)


def said(*command):
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def until(true, seconds):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.2)


def test_a_job_asked_to_vacate_its_node_loses_nothing(slurm, tmp_path):
    pytest.importorskip("submitit", reason="submitit is not installed (requirements-extras.txt)")
    fields = [*FIELDS, "seed=0,1", "training.steps=25"]
    grid, seen = make_grid(read_grid(None, fields, {"preset": "smoke"}), tmp_path), []

    def vacate_the_node_in_the_middle_of_a_run():
        until(lambda: (grid.standings()[0].step or 0) >= 4, 120)
        seen.append(states(grid))
        job = said("squeue", "-h", "-t", "running", "-o", "%i").split()[0]
        subprocess.run(["scancel", "--signal", "USR2", job], check=True)  # as at the end of its time
        until(lambda: states(grid)[0] != "running", 60)
        seen.append(states(grid))

    asked = threading.Thread(target=vacate_the_node_in_the_middle_of_a_run, daemon=True)
    asked.start()
    assert execute(plan(grid), "slurm", Resources(jobs=1), log=lambda line: None)
    asked.join(10)
    assert seen[0] == ["running", "queued"] and seen[1][0] == "interrupted"
    assert states(grid) == ["done"] * 2
    assert [steps_logged(cell) for cell in grid.cells] == [list(range(1, 26))] * 2
    starts = [line for line in (grid.place.of(grid.cells[0]) / "log.txt").read_text().splitlines() if ": step " in line]
    assert len(starts) == 2 and int(starts[1].rsplit(": step ", 1)[1].split()[0]) >= 4, "continued from its checkpoint"
