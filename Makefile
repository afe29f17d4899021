# Two commands for everyone: `make demo` and `make test`. Both set themselves up in .venv.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
RUN    ?= runs/segthor_datasetgan-demo

.PHONY: help setup demo test bench study clean

help:
	@echo "make demo    set up, then the main job on the built-in phantom CT: about a quarter of an hour on 2 CPU cores"
	@echo "make test    set up with the tools of development, then lint, types and tests"
	@echo "make bench   the measurements behind the figures in docs/results.md that are about speed: some minutes"
	@echo "make study   the main job's two-hour profile: the tables' orderings"

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
