# Every target sets up what it needs from a clean clone: git, make and Python >= 3.11 are enough.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
JOBS ?= 2
NEW_ENOUGH = $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "tubelet needs Python >= 3.11; name one with make PYTHON=python3.12"; exit 2; }

.PHONY: help setup demo test matrix check bench docs clean

help:
	@echo "make setup   create .venv and install tubelet with its development tools"
	@echo "make demo    segment and track the bundled video with the bundled model"
	@echo "make test    run the tests"
	@echo "make matrix  the demo and the tests on every Python at hand, and with the oldest libraries; SHORT=1 for a part"
	@echo "make check   formatting, lint, types and the layer rule"
	@echo "make bench   speed and memory, side by side"
	@echo "make docs    the documentation as pages: site/index.html"

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(NEW_ENOUGH)
	@echo "installing into $(VENV) (once; a few minutes where packages must be downloaded)"
	@if command -v uv >/dev/null 2>&1; then \
		uv venv --quiet --clear --python $(PYTHON) $(VENV) && \
		VIRTUAL_ENV=$(CURDIR)/$(VENV) uv pip install --quiet -e ".[export,hub,ray,web]" --group dev -c constraints.txt; \
	else \
		$(PYTHON) -m venv --clear $(VENV) && \
		$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1" && \
		$(BIN)/python -m pip install --quiet -e ".[export,hub,ray,web]" --group dev -c constraints.txt; \
	fi
	@touch $@

demo: $(STAMP)
	@$(BIN)/tubelet demo --out runs/demo

test: $(STAMP)
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist worksteal

# environments of their own, in .matrix/
matrix:
	@$(NEW_ENOUGH)
	@$(PYTHON) tests/matrix.py $(if $(SHORT),--short) --jobs $(JOBS)

check: $(STAMP)
	$(BIN)/ruff format --check src tests benchmarks docs/*.py
	$(BIN)/ruff check src tests benchmarks docs/*.py
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(STAMP)
	@for script in benchmarks/bench_*.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

docs: $(STAMP)
	$(BIN)/python docs/make_recipes.py
	$(BIN)/python docs/make_results.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

clean:
	rm -rf $(VENV) .matrix runs site
