# `make` alone lists the targets. All of them work on a fresh clone with Python 3.11 or newer and pip.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
IERF_SHARED ?= ../shared
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input
# What `make bench` runs: the others need a bank or a photograph as well, or nothing (see their first lines).
BENCHMARKS := coco_localization tiny_insertion integrated_head
# Several processes with many threads each are far slower than several processes with one.
ONE_THREAD := OMP_NUM_THREADS=1

# One stamp per set-up, written last: an interrupted set-up leaves none and is done again.
DEMO := $(VENV)/.installed-demo
DEV := $(VENV)/.installed
DOCS := $(VENV)/.installed-docs

.PHONY: help demo test lint bench docs page clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-6s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(DEMO) ## explain a photograph with the bundled model and write a report
	@$(BIN)/ierf demo

test: lint ## check style, types and arrows, then run every test
	@$(ONE_THREAD) $(BIN)/pytest -n 2

lint: $(DEV) ## check style, types and the arrows between rooms
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo --no-cache

bench: $(DEV) ## run the benchmarks that need the development data alone (IERF_SHARED=../shared)
	@if [ -d "$(IERF_SHARED)" ]; then \
		for script in $(BENCHMARKS:%=benchmarks/%.py); do $(ONE_THREAD) $(BIN)/python $$script --data "$(IERF_SHARED)" || exit 1; done; \
	else echo "no benchmarks were run: there is no development data folder $(IERF_SHARED), see CONTRIBUTING.md"; fi

docs: $(DOCS) ## build the documentation into site/
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "documentation: site/index.html"

page: ## build the interactive graph page from web/ (needs Node 20.19 or newer; the built page is in the repository)
	@cd web && npm ci --no-audit --no-fund && npm run build

clean: ## remove reports, built documentation and caches (.venv stays)
	@rm -rf site dist build ierf-report .pytest_cache .ruff_cache .mypy_cache .hypothesis
	@find . -name .venv -prune -o -name __pycache__ -type d -exec rm -rf {} +

$(DEMO): pyproject.toml constraints.txt
	@$(call install,demo)
	@touch $@

$(DEV): pyproject.toml constraints.txt
	@$(call install,dev)
	@touch $(DEMO) $@

$(DOCS): pyproject.toml constraints.txt
	@$(call install,docs)
	@touch $@

# $(call install,EXTRA): make the environment where it is missing or half made, then install the package with EXTRA into it.
# Debian without python3-venv has no ensurepip: there the outer pip serves the new environment.
define install
$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, $(PYTHON) is " + sys.version.split()[0] + ": make PYTHON=python3.13 ...")'
echo "setting up $(VENV) with ierf[$(1)]; the first time takes a few minutes ..."
$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv $(VENV) >/dev/null 2>&1 || \
	{ $(PYTHON) -m venv --without-pip $(VENV) && $(PYTHON) -m pip -qq --python $(BIN)/python install pip; }
$(PIP) -qq install -c constraints.txt -e '.[$(1)]'
endef
