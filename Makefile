# `make demo` runs the main experiment, `make test` checks a change. Both set up .venv first.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
RUN    ?= runs/segthor_datasetgan-demo

.PHONY: help setup demo test bench study clean

help:
	@echo "make demo    set up, then the main experiment on the built-in phantom CT: 10 to 40 minutes on 2 CPU cores"
	@echo "make test    set up the development tools, then run lint, type checks and tests"
	@echo "make bench   measure the speeds in docs/results.md: some minutes"
	@echo "make study   the two-hour profile of the main experiment"

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable '.[dev]'
	@touch $@ $(VENV)/.installed

setup: $(VENV)/.installed

demo: setup
	$(BIN)/medseg-gan recipe segthor_datasetgan --profile demo --out $(RUN)

test: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest

bench: setup
	$(BIN)/python benchmarks/stylegan2.py
	$(BIN)/python benchmarks/interpreter.py
	$(BIN)/python benchmarks/factory.py

study: setup
	$(BIN)/medseg-gan recipe segthor_datasetgan --profile study

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache
