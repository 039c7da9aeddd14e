# `make verify` and `make test` need Python 3.11 or newer and nothing else.
# They make .venv on the first run, and again when its description changes.

PYTHON  ?= python3
WORKERS ?= 2

BIN   := .venv/bin
READY := .venv/.ready

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help verify nightly test lint unit notebooks clean

help:  ## show this list
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

verify: $(READY)  ## prove every derivation and check it by every witness
	@mkdir -p build
	$(BIN)/ttt-proofs verify --json build/verify.json

nightly: $(READY)  ## every case of every test, and every mutant of every proof (hours)
	@mkdir -p build
	OMP_NUM_THREADS=1 $(BIN)/pytest -n $(WORKERS) --all-cases
	$(BIN)/ttt-proofs verify --every-mutant --json build/nightly.json

test: lint unit notebooks  ## run all of the checks below

lint: $(READY)  ## check style (ruff), types (pyright), who imports whom, and the notebooks' form
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports --no-cache
	$(BIN)/python tools/notebook_lint.py notebooks

unit: $(READY)  ## run the tests, of long sweeps a few cases
	OMP_NUM_THREADS=1 $(BIN)/pytest -n $(WORKERS)

notebooks: $(READY)  ## run the notebooks and compare every verdict
	$(BIN)/pytest notebooks --nbval --nbval-current-env \
		--nbval-sanitize-with notebooks/sanitize.cfg --nbval-cell-timeout 120

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
		"Python 3.11 or newer is required; got %d.%d. Try: make PYTHON=python3.11" \
		% sys.version_info[:2])'
	$(PYTHON) -m venv .venv
	PIP_CONSTRAINT=constraints.txt $(BIN)/python -m pip install \
		--quiet --disable-pip-version-check --editable '.[dev,notebooks,triton]'
	@touch $@

clean:  ## remove everything that make made
	rm -rf .venv build dist .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +
