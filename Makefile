# featbench: `make bench` and `make test` need only python3 (3.11 or newer) and make.

PYTHON ?= python3
EXPERIMENT ?= digits
OPTIONS ?=
UV_VERSION := 0.13.9
BIN := .venv/bin
READY := .venv/.ready

.PHONY: help setup bench extract evaluate baseline report test lint type check speed lock clean
.DEFAULT_GOAL := help

help: ## print this
	@sed -n 's/^\([a-z]*\):.*## /\1 - /p' $(MAKEFILE_LIST) | awk -F' - ' '{printf "make %-10s %s\n", $$1, $$2}'
	@echo "EXPERIMENT=name-or-path picks another experiment, OPTIONS='--set seed=1' adds options"

setup: $(READY) ## make .venv with the locked packages

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "featbench needs Python 3.11 or newer")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --require-hashes -r requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@

bench: $(READY) ## run EXPERIMENT from images to tables
	$(BIN)/featbench run $(EXPERIMENT) $(OPTIONS)

extract evaluate baseline: $(READY) ## run one stage of EXPERIMENT
	$(BIN)/featbench $@ $(EXPERIMENT) $(OPTIONS)

report: $(READY) ## make the tables, plots and page of results/EXPERIMENT again
	$(BIN)/featbench report results/$(patsubst %.toml,%,$(notdir $(EXPERIMENT:/=))) $(OPTIONS)

test: $(READY) ## run the tests
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

lint: $(READY) ## check style
	$(BIN)/ruff check
	$(BIN)/ruff format --check

type: $(READY) ## check types
	$(BIN)/mypy

check: lint type test ## lint, type and test

speed: $(READY) ## measure the speed of each stage, as ratios; IMAGES=FOLDER takes photos of yours
	$(BIN)/python -m tests.speed.extraction $(if $(IMAGES),--images $(IMAGES))
	$(BIN)/python -m tests.speed.prediction $(if $(IMAGES),--images $(IMAGES))
	$(BIN)/python -m tests.speed.solvers
	$(BIN)/python -m tests.speed.gpu --sizes 0
	$(BIN)/python -m tests.speed.training
	$(BIN)/python -m tests.speed.startup

lock: ## compile requirements.lock anew from pyproject.toml
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
		--no-emit-find-links --no-annotate --extra dev --output-file requirements.lock pyproject.toml

clean: ## delete what was built; results/ and caches stay
	rm -rf .venv build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find featbench tests -name __pycache__ -type d -prune -exec rm -rf {} +
