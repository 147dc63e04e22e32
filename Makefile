# Each target sets up .venv by itself, so each is one command on a fresh machine with Python >= 3.11 and pip.
PYTHON ?= python3
EXTRA  ?= cuda13
BIN    := .venv/bin

.PHONY: demo test test-all lint docs gpu constraints clean

demo: .venv/installed  ## the whole line on a generated dataset, two to four minutes on two cores
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

docs: .venv/installed  ## the documentation as a site, in docs/_build/html; a warning or a broken link fails
	$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going --jobs auto docs docs/_build/html
	@echo "docs/_build/html/index.html"

constraints: .venv/installed  ## the newest versions that fit together become those that are installed; then: make test
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade --upgrade-strategy eager --editable '.[$(EXTRA),dev]' torch torchvision
	{ head -2 constraints.txt; $(BIN)/python -m pip freeze --exclude-editable; } > constraints.new && mv constraints.new constraints.txt

.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "medsass needs Python >= 3.11; say which with: make $(MAKECMDGOALS) PYTHON=/path/to/python3" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	@# torch is named, so that pip settles its version before those of the CUDA libraries that others share with it
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[$(EXTRA),dev]' torch torchvision
	@touch $@

clean:
	rm -rf .venv medsass-demo docs/_build docs/api
