# Everything to do with a checkout. It needs Python (3.11 or newer) and make only.
#
# `make run PYTHON=python3.13` creates .venv with another Python, VENV=.venv-3.13 another directory;
# `make test ARGS='-k lease'` passes arguments; `make lock LOCK_ARGS=--upgrade` upgrades the locks.

PYTHON ?= python3
ARGS ?=
TRACES ?=
LOCK_ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --quiet --disable-pip-version-check --no-input install --no-deps

# Stamps: an environment is created once, and updated only when its requirements change.
MADE := $(VENV)/.made
RUNTIME := $(VENV)/.runtime
DEV := $(VENV)/.dev
DRIVERS := tests/drivers/node_modules/.package-lock.json

MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help install run demo demo-ha test test-fast soak chaos coverage lint format types openapi bench advisor-report lock

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

# `exec`: signals reach the service itself, not a shell.

install: $(RUNTIME) ## Install the commands in .venv; start nothing

run: $(RUNTIME) ## Serve; without configured servers, start a private Postgres
	@POOLKEEPER_NODE=$${POOLKEEPER_NODE:-auto} exec $(BIN)/poolkeeper serve $(ARGS)

demo: $(RUNTIME) ## Serve with sample tenants and traffic
	@POOLKEEPER_NODE=$${POOLKEEPER_NODE:-auto} exec $(BIN)/poolkeeper demo $(ARGS)

demo-ha: $(RUNTIME) ## Run two instances, their Postgres, and a client that never stops
	@exec $(BIN)/python -m benchmarks.failover $(ARGS)

# Tests wait for a third of their time: more processes than cores, each with its own Postgres.

PARALLEL := --numprocesses 4 --dist worksteal

test: $(DEV) $(DRIVERS) ## Run the tests against a real Postgres
	@exec $(BIN)/pytest $(PARALLEL) $(ARGS)

# The JavaScript drivers of some tests; where npm is missing they are skipped.

$(DRIVERS): tests/drivers/package-lock.json
	@! command -v npm >/dev/null || npm ci --loglevel=error --prefix tests/drivers >/dev/null || echo 'npm cannot install the drivers.' >&2

# Without the API, the catalog, subprocesses and the values of queries: .ci/run runs these on
# every Python.

FAST := tests/domain tests/pools tests/settings tests/wire --ignore tests/pools/query

test-fast: $(DEV) ## Run the tests of the domain and the pools only, in a minute
	@exec $(BIN)/pytest --numprocesses 2 --dist worksteal $(FAST) $(ARGS)

soak: $(DEV) ## Acquire 100,000 leases with random cancellation, and look for leaks
	@SOAK_LEASES=$${SOAK_LEASES:-100000} exec $(BIN)/pytest --timeout 3600 --durations 1 \
		tests/faults/test_random_cancellation.py $(ARGS)

chaos: $(DEV) ## Inject 100 random faults into two instances, and around nodes (CHAOS_FAULTS, CHAOS_SEED)
	@CHAOS_FAULTS=$${CHAOS_FAULTS:-100} exec $(BIN)/pytest --capture no --timeout 7200 \
		tests/faults/test_instances_fail.py tests/faults/test_nodes_at_random.py $(ARGS)

coverage: $(DEV) $(DRIVERS) ## Run the tests and show uncovered branches
	@exec $(BIN)/pytest $(PARALLEL) --timeout 1800 --cov $(ARGS)

lint: $(DEV) ## Check style, format, imports, generated code and the length of files
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports --no-cache
	@$(BIN)/python -m tests.client.generate --check
	@find app -name '*.py' -exec awk 'FNR == 601 {print FILENAME ": longer than 600 lines"; long = 1} END {exit long}' {} +

format: $(DEV) ## Format the code
	@$(BIN)/ruff check --fix-only .
	@$(BIN)/ruff format .

types: $(DEV) ## Check the types
	@exec $(BIN)/mypy

openapi: $(DEV) ## Generate openapi/openapi.json, and the client's requests and types from it
	@mkdir -p openapi
	@$(BIN)/poolkeeper openapi > openapi/openapi.json.new
	@mv openapi/openapi.json.new openapi/openapi.json
	@$(BIN)/python -m tests.client.generate

bench: $(DEV) ## Run the benchmarks
	@exec $(BIN)/python -m benchmarks $(ARGS)

advisor-report: $(DEV) ## Simulate every rule and write docs/advisor (TRACES=dir adds traces)
	@exec $(BIN)/python -m benchmarks.advisor_report --traces '$(TRACES)' $(ARGS)

LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-header --no-emit-index-url --no-emit-find-links $(LOCK_ARGS) pyproject.toml

lock: $(DEV) ## Pin every dependency with hashes
	@$(LOCK) --group build --output-file requirements.lock
	@$(LOCK) --group dev --constraint requirements.lock --output-file requirements-dev.lock
	@! grep -nE '://|index-url|find-links' requirements.lock requirements-dev.lock

$(MADE):
	@command -v $(PYTHON) >/dev/null || { echo 'There is no $(PYTHON) here; name another: make PYTHON=python3.12' >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Poolkeeper needs Python 3.11 or newer, and $(PYTHON) is %d.%d; name another: make PYTHON=python3.12" % sys.version_info[:2])'
	@echo 'Creating $(VENV) …' >&2
	@$(PYTHON) -m venv --clear $(VENV)
	@touch $@

$(RUNTIME): requirements.lock pyproject.toml | $(MADE)
	@echo 'Installing what the service needs (once, about a minute) …' >&2
	@$(PIP) --require-hashes --requirement requirements.lock
	@$(PIP) --no-index --no-build-isolation --editable .
	@touch $@

# A superset of the runtime requirements, so the runtime needs no second installation.
$(DEV): requirements-dev.lock requirements.lock pyproject.toml | $(MADE)
	@echo 'Installing what the tests need (once, about a minute) …' >&2
	@$(PIP) --require-hashes --requirement requirements-dev.lock
	@$(PIP) --no-index --no-build-isolation --editable .
	@touch $@ $(RUNTIME)
