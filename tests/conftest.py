"""One thread per test process (pytest-xdist runs one process per core), so results do not depend on the machine."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # before anything imports triton

torch.set_num_threads(1)
