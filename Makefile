# Every command a person, CI or compose needs. `make help` lists them.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
ROUNDS ?= 20
WORKERS ?= 3

# Keeper reports to nobody, and neither does what it stands on.
export PREFECT_SERVER_ANALYTICS_ENABLED := false
export DO_NOT_TRACK := 1

.PHONY: help setup demo test test-compose sbom lint format bench chaos up down services services-down lock audit

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 15

setup: $(STAMP) ## the virtual environment from requirements.lock, byte-compiled

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Keeper needs Python 3.11 or newer: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: \
		-r <(awk '/^uv==/{found=1} found{print} found&&!/\\$$/{exit}' requirements.lock)
	@UV_COMPILE_BYTECODE=1 PYTHONDONTWRITEBYTECODE= $(BIN)/uv pip sync --quiet --python $(BIN)/python --require-hashes requirements.lock
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@PYTHONDONTWRITEBYTECODE= $(BIN)/python -m compileall -q keeper flows tasks api dashboard deployments migrations
	@touch $(STAMP)

demo: setup ## the main job for real against the simulator (or Keepa, where KEEPER_KEEPA_API_KEY is set); KEEP=1 leaves it running
	@$(BIN)/python -m deployments.demo

test: setup ## everything that proves the program, in WORKERS=3 processes side by side
	@$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadgroup

test-compose: setup ## compose.yaml for real: image, whole stack, a watch and its alert; needs a Docker engine, or root on Debian
	@$(BIN)/python -m pytest -p no:cacheprovider tests/e2e/compose/check_compose.py tests/e2e/compose/check_nodes.py

sbom: setup ## what is in the image, as CycloneDX, to SBOM=dist/sbom.json
	@mkdir -p $(dir $(or $(SBOM),dist/sbom.json))
	@PYTHONWARNINGS=ignore::UserWarning $(BIN)/cyclonedx-py requirements --pyproject pyproject.toml --output-reproducible --of JSON -o $(or $(SBOM),dist/sbom.json) deployments/requirements.lock

lint: setup ## ruff, mypy, import-linter and the lint rules of the house
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup ## let ruff put the code in form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: setup ## benchmarks, each with its baseline in the same run; BENCH=name for one
	@for name in $(or $(BENCH),record plan decode deals arbitrage opportunities tokens flow triple_write api scale); do $(BIN)/python -m benchmarks.$$name || exit 1; done

chaos: setup ## the kill tests, ROUNDS=20 of each kind
	@CHAOS_ROUNDS=$(ROUNDS) $(BIN)/python -m pytest tests/chaos -s --timeout 0

up: setup ## the long-running program: PostgreSQL, Prefect on port 4200, deployments, worker, relay, API on port 8000, dashboard on port 8501 (and the simulator without a key)
	@$(BIN)/python -m deployments.local up

down: setup ## end what `make up` or KEEP=1 left running
	@$(BIN)/python -m deployments.local down

services: setup ## real Kafka and Elasticsearch, and PostgreSQL on a TCP port; prints the settings to export (BROKERS=3, SEARCH_NODES=3)
	@$(BIN)/python -m tests.services up --brokers $(or $(BROKERS),1) --search-nodes $(or $(SEARCH_NODES),1)

services-down: setup ## end what `make services` started
	@$(BIN)/python -m tests.services down

lock: ## requirements.lock anew from pyproject.toml
	$(BIN)/uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --quiet -o requirements.lock
	$(BIN)/uv pip compile pyproject.toml --constraint requirements.lock --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate --quiet -o deployments/requirements.lock

audit: setup ## known vulnerabilities of what is locked; needs the network, and says so where it is missing
	@$(BIN)/python -m deployments.vulnerabilities
