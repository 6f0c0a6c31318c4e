#!/usr/bin/env bash
# What a second busy process on the same cores does to a rollout step, with OpenMP's own spinning and with ours.
# Prints the benchmark's last line alone and beside a twin, for GOMP_SPINCOUNT unset-like (300000) and 3000.
set -euo pipefail
cd "$(dirname "$0")/../.."
for spin in 300000 3000; do
    export GOMP_SPINCOUNT=$spin
    echo "GOMP_SPINCOUNT=$spin, alone:  $(.venv/bin/python tests/benchmarks/rollout_step.py | tail -n 1)"
    .venv/bin/python tests/benchmarks/rollout_step.py >/dev/null &
    echo "GOMP_SPINCOUNT=$spin, beside a twin:  $(.venv/bin/python tests/benchmarks/rollout_step.py | tail -n 1)"
    wait
done
