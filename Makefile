# edged: `make demo` shows it at work, `make test` checks all of it.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help demo test lint docs cluster lock clean

help: ## say what can be made
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-6s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/.installed ## install into .venv, fetch the default model, start the daemon and ask it
	@$(BIN)/python tools/demo.py

# The demo has the same model: one download serves both.
test: export EDGED_TEST_MODELS ?= $(CURDIR)/.demo/state/models
test: lint ## run every test
	$(BIN)/python -m pytest

lint: $(VENV)/.installed-test ## check style and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

docs: $(VENV)/.installed ## write config/edged.toml, the tables of settings and telemetry, and its schema anew
	$(BIN)/python -m tools.settings_docs
	$(BIN)/python -m tools.telemetry_docs

cluster: $(VENV)/.installed-test ## kill a node of a NATS cluster and cut a bridge, under devices and daemons
	mkdir -p .cache && $(BIN)/python tools/make_tiny_model.py --out .cache/tiny.gguf
	$(BIN)/python -m tools.cluster nats --model .cache/tiny.gguf
	$(BIN)/python -m tools.cluster bridge --model .cache/tiny.gguf

lock: ## write the lock files anew, with the newest versions that fit
	set -e; uv=$$(mktemp -d); trap 'rm -rf "$$uv"' EXIT; \
	$(PYTHON) -m venv "$$uv"; "$$uv/bin/pip" install --quiet uv; \
	compile="$$uv/bin/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes"; \
	export UV_CUSTOM_COMPILE_COMMAND="make lock"; \
	$$compile --output-file requirements.lock pyproject.toml; \
	$$compile --output-file requirements-test.lock --extra test --constraint requirements.lock pyproject.toml

clean: ## remove everything that was made, the fetched model too
	rm -rf $(VENV) .cache .demo build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find edged tests tools -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.installed: pyproject.toml requirements.lock
	@PYTHON=$(PYTHON) tools/install.sh

$(VENV)/.installed-test: $(VENV)/.installed requirements-test.lock
	@PYTHON=$(PYTHON) tools/install.sh test
