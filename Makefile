# Two commands do all the set-up on a fresh machine: `make demo` and `make test`. Each makes .venv if need be, and reuses it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: help demo test test-slow lint bench clean

help:
	@echo "make demo       the main job on the bundled network, offline, under 3 minutes; writes out/demo/"
	@echo "make test       lint, types and tests (under 15 minutes)"
	@echo "make test-slow  the long tests, too"
	@echo "make bench      the benchmarks (long)"

$(VENV)/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install -c constraints.txt -e .
	@touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(PIP) install -c constraints.txt -e ".[dev]"
	@touch $@

demo: $(VENV)/installed
	$(BIN)/convscope demo --out out/demo

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

test: lint
	$(BIN)/python -m pytest -n auto --durations=20 -m "not slow and not gpu"

test-slow: lint
	$(BIN)/python -m pytest -n auto

bench: $(VENV)/installed-dev
	$(PIP) install -c constraints.txt -e ".[bench]"
	$(BIN)/python benchmarks/feature_visualization.py
	$(BIN)/python benchmarks/deconvnet.py
	$(BIN)/python benchmarks/occlusion.py
	$(BIN)/python benchmarks/scan.py
	for part in error batch style; do $(BIN)/python benchmarks/inversion.py $$part; done

clean:
	rm -rf out build dist .pytest_cache .ruff_cache
