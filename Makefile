# Each target sets up .venv by itself, so each is one command on a fresh machine with Python >= 3.11 and pip.
PYTHON ?= python3
EXTRA  ?= cuda13
BIN    := .venv/bin

.PHONY: demo test test-all lint gpu clean

demo: .venv/installed  ## the whole line on a generated dataset, one to three minutes on two cores
	$(BIN)/medsass demo medsass-demo --overwrite

# two processes with one thread each, half of the files for either; who is done first takes over some of the other's rest
PYTEST := $(BIN)/python -m pytest --numprocesses 2 --dist worksteal
test test-all: export OMP_NUM_THREADS := 1
test test-all: export OPENBLAS_NUM_THREADS := 1

test: lint  ## what CI runs: every guard, with fewer random examples, kills and architectures
	$(PYTEST)

test-all: lint  ## all of it
	$(PYTEST) --all-work

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

gpu: .venv/installed  ## on a machine with an NVIDIA GPU: its tests, then every benchmark, or what MINUTES allow
	$(BIN)/python -m pytest -m gpu --all-work --numprocesses 8
	$(BIN)/python -m benchmarks.all $(if $(MINUTES),--minutes $(MINUTES))

.venv/installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "medsass needs Python >= 3.11; say which with: make $(MAKECMDGOALS) PYTHON=/path/to/python3" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	@# torch is named, so that pip settles its version before those of the CUDA libraries that others share with it
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$(EXTRA),dev]' torch torchvision
	@touch $@

clean:
	rm -rf .venv medsass-demo
