# Every chore has one command. `make` lists them.
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SHARED ?= ../shared
ARGS ?=

help: ## list the commands
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

$(VENV)/.run: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("lumeproxy needs Python 3.11 or newer; set PYTHON=python3.11") if sys.version_info < (3, 11) else None'
	@echo "Installing into $(VENV), once …"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -q --disable-pip-version-check -e .
	@touch $@

$(VENV)/.dev: pyproject.toml $(VENV)/.run
	@$(BIN)/python -m pip install -q --disable-pip-version-check -e '.[dev]'
	@touch $@

# What judges pages and API from outside: a browser, its driver and the accessibility rules, and a tester of OpenAPI
# documents, which needs other versions than ours. Without them their tests are skipped.
$(VENV)/.judges: $(VENV)/.dev
	@$(BIN)/python -m pip install -q --disable-pip-version-check 'playwright>=1.65,<2'
	@npm install --silent --no-fund --no-audit --prefix $(VENV)/axe axe-core@4
	@command -v chromium >/dev/null || { apt-get update -qq && apt-get install -y -qq chromium >/dev/null; } || \
		echo "No Chromium: install it, so that the pages' test can run"
	@test -x $(VENV)/schemathesis/bin/python || $(PYTHON) -m venv $(VENV)/schemathesis
	@$(VENV)/schemathesis/bin/python -m pip install -q --disable-pip-version-check 'schemathesis>=4,<5'
	@touch $@

install: $(VENV)/.dev ## create .venv with everything for development

run: $(VENV)/.run ## serve (options: make run ARGS="--port 9000")
	@$(BIN)/python -m lumeproxy $(ARGS)

fmt: $(VENV)/.dev ## format the code
	@$(BIN)/ruff format lumeproxy tests
	@$(BIN)/ruff check --fix lumeproxy tests

lint: $(VENV)/.dev ## check style
	@$(BIN)/ruff format --check lumeproxy tests
	@$(BIN)/ruff check lumeproxy tests

type: $(VENV)/.dev ## check types
	@$(BIN)/mypy

test: $(VENV)/.dev ## run the tests
	@$(BIN)/python -m pytest $(ARGS)

cover: $(VENV)/.dev ## run the tests and ask for 95 % coverage of core, dialects and store
	@$(BIN)/python -m pytest --cov=lumeproxy.core --cov=lumeproxy.dialects --cov=lumeproxy.store \
		--cov-report=term-missing:skip-covered --cov-fail-under=95 $(ARGS)

e2e: $(VENV)/.dev $(VENV)/.judges ## run the real clients and a browser through the proxy (needs ../shared, node and npm)
	@SHARED="$(abspath $(SHARED))" SCHEMATHESIS="$${SCHEMATHESIS:-$(abspath $(VENV))/schemathesis/bin/schemathesis}" $(BIN)/python -m pytest -m e2e -s --timeout 1200 tests/e2e $(ARGS)

faults: $(VENV)/.dev ## inject faults into a running server and print what came of it (needs strace)
	@$(BIN)/python -m pytest -m faults --timeout 1800 tests/faults $(ARGS)

faults-full: $(VENV)/.dev ## the same in its long form, up to an hour
	@FAULTS=full $(BIN)/python -m pytest -m faults --timeout 3600 tests/faults $(ARGS)

bench: $(VENV)/.dev ## compare with a bare aiohttp pass-through (needs ../shared)
	@$(BIN)/python -m pip install -q --disable-pip-version-check uvloop
	@PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python $(SHARED)/bench/bench.py bare-aiohttp lumeproxy $(ARGS)

dist: $(VENV)/.dev ## build the wheel into dist/
	@$(BIN)/python -m pip wheel -q --disable-pip-version-check --no-deps -w dist .

.PHONY: help install run fmt lint type test cover e2e faults faults-full bench dist
