# edged: `make demo` shows it at work, `make test` checks all of it.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help demo test lint docs cluster dist deb smoke test-debian system-test lock clean

help: ## say what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

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

dist: ## make source archive and wheel in dist/
	set -e; build=$$(mktemp -d); trap 'rm -rf "$$build"' EXIT; \
	$(PYTHON) -m venv "$$build"; "$$build/bin/pip" install --quiet build; \
	SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) "$$build/bin/python" -m build --outdir dist .

deb: $(VENV)/.installed ## make the Debian packages in dist/ (as root; minutes, the first time half an hour)
	$(BIN)/python -m tools.debian

smoke: $(VENV)/.installed-test ## make one package and try it in one virtual machine (as root)
	$(BIN)/python -m tools.debian --release 12 --architecture amd64
	$(BIN)/python -m tools.vm --release 12 --architecture amd64 --scenario service

test-debian: $(VENV)/.installed ## run the fast tests on Debian 13's Python (as root)
	$(BIN)/python -m tools.debian.suite

system-test: deb $(VENV)/.installed-test ## try the packages on Debian in virtual machines (as root; an hour)
	$(MAKE) --jobs=2 --keep-going $(MACHINES)

# Two at a time, as a machine boots on one processor; tables in dist/
MACHINES := machine-arm64-13 machine-amd64-12 machine-arm64-12 machine-amd64-13
.PHONY: $(MACHINES)
VM = $(BIN)/python -m tools.vm --table dist/$@.md
machine-arm64-13: ; $(VM) --release 13 --architecture arm64 --cuts 10
machine-amd64-12: ; $(VM) --release 12 --architecture amd64 --cuts 3
machine-arm64-12: ; $(VM) --release 12 --architecture arm64 --scenario service
machine-amd64-13: ; $(VM) --release 13 --architecture amd64 --scenario service

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
