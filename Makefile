# Two commands are enough: `make run` and `make test`. Each sets up all it needs in .venv.
PYTHON ?= python3
BIN := .venv/bin
UV := $(BIN)/uv
export UV_PROJECT_ENVIRONMENT := .venv
export UV_PYTHON_DOWNLOADS := never

.DEFAULT_GOAL := help
.PHONY: help setup run test soak lint bench tgnews-bundle

help:  ## show this list
	@grep -E '^[a-z-]+:.*## ' Makefile | sed -E 's/^([a-z-]+):.*## /  make \1\t/'

$(UV):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Palate needs Python 3.11 or newer; name one with: make PYTHON=/path/to/python3.11 …" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet uv

.venv/.run: $(UV) uv.lock pyproject.toml
	$(UV) sync --quiet --frozen --compile-bytecode --no-dev --inexact --extra postgres --extra telegram
	@$(BIN)/python -m compileall -q src
	@touch $@

.venv/.all: $(UV) uv.lock pyproject.toml
	$(UV) sync --quiet --frozen --compile-bytecode --all-extras --inexact
	@$(BIN)/python -m compileall -q src
	@touch $@ .venv/.run

setup: .venv/.all  ## make .venv with everything in it

run: .venv/.run  ## Palate with sample content at http://127.0.0.1:8080
	$(BIN)/palate demo

test: .venv/.all  ## types, style, imports and all tests
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest -n 2 -m "not soak"

soak: .venv/.all  ## the long runs that `make test` leaves out
	$(BIN)/pytest -m soak

lint: .venv/.all  ## format the code and check it
	$(BIN)/ruff format
	$(BIN)/ruff check --fix
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: .venv/.all  ## every figure of the README (some need PALATE_DATA)
	$(UV) sync --quiet --frozen --compile-bytecode --all-extras --all-groups --inexact
	for script in benchmarks/bench_*.py; do $(BIN)/python $$script || exit 1; done

tgnews-bundle: .venv/.all  ## dist/tgnews-….tar.gz: tgnews for a Linux without Python
	$(UV) sync --quiet --frozen --compile-bytecode --all-extras --inexact --group bundle
	$(BIN)/python scripts/tgnews_bundle.py
