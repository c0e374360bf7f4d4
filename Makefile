# `make run` and `make test` each do all the set-up they need; a second call does none.

PYTHON ?= python3
VENV ?= .venv
# Extras of pyproject.toml to install beside the core: cpu for every framework, or torch.
EXTRAS ?= cpu
# An extra package index for torch alone, such as one with CPU builds.
TORCH_INDEX ?=

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
STAMPS := $(VENV)/.stamps

# For a CUDA machine: what each framework's own environment holds. Their CUDA libraries
# are of different versions and may not meet in one.
GPU := $(VENV)-gpu
GPU_FRAMEWORKS ?= torch tensorflow jax keras-jax
CUDA_torch ?= torch
CUDA_tensorflow ?= tensorflow[and-cuda]
CUDA_jax ?= jax[cuda12]
CUDA_keras-jax ?= keras jax[cuda12]
SUITE ?= frameworks
DEVICE ?= cuda

# The tests start hundreds of processes: none compiles again what another has compiled.
unexport PYTHONDONTWRITEBYTECODE

# Tests side by side: one more than there are cores, for many of them wait, and each with
# one thread. Those that measure time run alone, afterwards.
TEST_JOBS ?= $(shell cores=$$(nproc); echo $$((cores < 8 ? cores + 1 : 8)))
PYTEST_SIDE_BY_SIDE := OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(BIN)/pytest --numprocesses $(TEST_JOBS) --dist loadgroup --no-loadscope-reorder

.PHONY: run run-gpu test test-quick test-all static benchmark format clean

run: $(STAMPS)/run
	$(BIN)/rnn-harness run quick

run-gpu: $(GPU)/core/.done $(GPU_FRAMEWORKS:%=$(GPU)/%/.done)
	$(GPU)/core/bin/rnn-harness run $(SUITE) --device $(DEVICE) -o results/runs/$(SUITE)-$(DEVICE) \
	  $(foreach name,$(GPU_FRAMEWORKS),--set environments.$(name)=$(GPU)/$(name)/bin/python)

test: static
	$(PYTEST_SIDE_BY_SIDE) -m "not alone and not long"
	$(BIN)/pytest -m alone

# For the loop while writing: what is neither slow nor needs the machine for itself.
test-quick: static
	$(PYTEST_SIDE_BY_SIDE) -m "not alone and not long and not slow" -q

# What takes minutes more: whole certificates of implementations that compile a program
# for every shape, a hundred kills, and many more odd inputs.
test-all: test
	$(PYTEST_SIDE_BY_SIDE) -m long
	$(BIN)/python -m tests.faults.kills --kills 100
	RNN_HARNESS_FUZZ=15000 $(PYTEST_SIDE_BY_SIDE) tests/faults/test_fuzz_files.py
	RNN_HARNESS_FUZZ=5000 $(BIN)/pytest tests/faults/test_fuzz_command_line.py
	RNN_HARNESS_FUZZ=1500 $(BIN)/pytest tests/faults/test_fuzz_declarations.py

static: $(STAMPS)/test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

benchmark: $(STAMPS)/test
	$(BIN)/pytest tests/benchmarks --benchmark-only -o addopts=

format: $(STAMPS)/test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) $(GPU)

$(GPU)/%/.done: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(GPU)/$*
	$(GPU)/$*/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e . $(foreach package,$(CUDA_$*),'$(package)')
	touch $@

$(STAMPS)/venv:
	$(PYTHON) -m venv $(VENV)
	mkdir -p $(STAMPS)
	touch $@

# torch goes first and alone, so that an extra index is asked for torch only.
$(STAMPS)/torch: $(STAMPS)/venv constraints.txt
	$(if $(filter torch cpu,$(EXTRAS)),$(PIP) --no-deps $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) torch)
	touch $@

$(STAMPS)/run: $(STAMPS)/torch pyproject.toml
	$(PIP) -e '.[$(EXTRAS)]'
	touch $@

$(STAMPS)/test: $(STAMPS)/torch pyproject.toml
	$(PIP) -e '.[$(EXTRAS),test]'
	touch $@ $(STAMPS)/run
