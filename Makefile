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

.PHONY: run test format clean

run: $(STAMPS)/run
	$(BIN)/rnn-harness run quick

test: $(STAMPS)/test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest

format: $(STAMPS)/test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV)

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
