# make demo    the whole road on text of this machine, in a few minutes
# make test    ruff, mypy and pytest
# Both make .venv and install into it first. PYTHON=python3.12 make test takes another Python.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# torch comes first and exactly: where a CPU build is at hand pip takes it, and another package's looser
# request would bring gigabytes of CUDA packages.
TORCH := torch==2.13.0
# Real text for tests that can use it; they skip without it.
ifneq ($(wildcard ../shared/data/README.md),)
export TOKENMILL_TEST_DATA ?= $(abspath ../shared/data)
endif

.PHONY: demo test clean

demo: $(VENV)/installed
	$(BIN)/python -m demo

test: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet $(TORCH)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) runs build dist *.egg-info
