# perpforge: `make demo`, `make test`. Both build .venv from the lock file first, once.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
LOCKS := requirements-bootstrap.lock requirements.lock pyproject.toml
# The first of these that runs, is 3.11 or 3.12 and has venv.
PYTHON ?= $(shell for p in python3.12 python3.11 python3; do \
	"$$p" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' 2>/dev/null && { echo "$$p"; break; }; done)
export UV_PYTHON_DOWNLOADS := never

.PHONY: help setup demo test lint bench up lock deep clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 16

setup: $(STAMP)  ## build .venv from the lock file; does nothing when it is up to date

$(STAMP): $(LOCKS)
	@test -n "$(PYTHON)" || { echo "perpforge needs Python 3.11 or 3.12 with venv (Debian: apt install python3-venv)"; exit 1; }
	@echo "building $(VENV) with $(PYTHON) (about 3.3 GB)"
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-bootstrap.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements.lock \
		|| $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	$(BIN)/perpforge compile
	@touch $@

demo: $(STAMP)  ## the whole loop, offline, in minutes; KLINES=DIR uses recorded 1m klines; ARGS passes flags on
	$(BIN)/perpforge demo $(if $(KLINES),--klines '$(KLINES)') $(ARGS)

test: $(STAMP)  ## the tests, a file at a time on each processor; ARGS passes flags on to pytest
	$(BIN)/python -m pytest -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder $(ARGS)

lint: $(STAMP)  ## format, lint, types, layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(STAMP)  ## the benchmarks, each with its baseline
	$(BIN)/python -m benchmarks

up: $(STAMP)  ## MLflow and the Dagster UI on the data of the last demo
	$(BIN)/perpforge up $(ARGS)

lock: $(STAMP)  ## resolve the lock files anew
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-emit-index-url --generate-hashes --no-header \
		--output-file requirements-bootstrap.lock requirements-bootstrap.in
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-emit-index-url --generate-hashes --no-header \
		--extra worker --extra platform --extra dev --output-file requirements.lock pyproject.toml
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-emit-index-url --generate-hashes --no-header \
		--extra worker --output-file requirements-worker.lock pyproject.toml

deep: $(STAMP)  ## the long proofs: full demos, kill campaigns, a fresh machine's install
	bash .ci/deep

clean:  ## remove what runs have written (not .venv)
	rm -rf .perpforge .pytest_cache .mypy_cache .ruff_cache .hypothesis
