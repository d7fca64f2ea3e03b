# The two commands that matter: `make demo` and `make test`.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
# more options for the fast tests, such as --cov
FAST_OPTIONS ?=

# nothing that a test or the demo needs is downloaded
export HF_HUB_OFFLINE := 1

.DEFAULT_GOAL := help
.PHONY: help demo test check bench docs format reference install clean

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-9s  %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(STAMP)  ## a whole run on embedded models and data
	$(BIN)/plainchant demo

test: check  ## everything that must hold before a merge
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 -m "not slow" $(FAST_OPTIONS)
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile -m slow

check: $(STAMP)  ## lint, format, types, layers
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(STAMP)  ## docs/speed.md measured anew, about twenty minutes on two quiet cores
	$(BIN)/python bench/speed all

docs: $(STAMP)  ## the pages as a site in build/site, for any browser and without a network
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --site-dir build/site

format: $(STAMP)  ## rewrite the code as ruff wants it
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

reference: $(STAMP)  ## rewrite docs/reference from the code
	$(BIN)/python docs/reference/generate.py

install: $(STAMP)  ## make .venv, or bring it up to date

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "plainchant needs Python 3.11 or newer: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	$(PYTHON) -m venv .venv
# torch by itself and first: an exact request lets an index answer with its CPU build
	$(BIN)/python -m pip install -c constraints.txt torch==2.13.0
	$(BIN)/python -m pip install -c constraints.txt -e '.[demo,api,ray,dev]'
	@touch $@

clean:  ## remove .venv, caches and built files
	rm -rf .venv dist build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
