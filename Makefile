# Every target sets up what it needs from a clean clone: git, make and Python >= 3.11 are enough.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
JOBS ?= 2
NEW_ENOUGH = $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "tubelet needs Python >= 3.11; name one with make PYTHON=python3.12"; exit 2; }
PACKAGES = -e ".[export,hub,onnx,openvino,ray,web]" --group dev -c constraints.txt

# where there is no NVIDIA device, PyTorch without CUDA, which is a fraction of the size; if it cannot be had, the usual one
UV = VIRTUAL_ENV=$(CURDIR)/$(VENV) uv pip install --quiet
FOR_CPUS = --torch-backend cpu
NVIDIA = test "$$(uname -s)" != Linux || nvidia-smi -L >/dev/null 2>&1
AT_HAND = UV_HTTP_TIMEOUT=20 UV_HTTP_RETRIES=1 $(UV) --dry-run $(FOR_CPUS) torch torchvision -c constraints.txt >/dev/null 2>&1
define INSTALL_BY_UV
	if $(NVIDIA); then \
		$(UV) $(PACKAGES); \
	elif $(AT_HAND) && echo "no NVIDIA device: PyTorch for CPUs alone" && $(UV) $(FOR_CPUS) $(PACKAGES); then \
		:; \
	else \
		echo "no NVIDIA device, but PyTorch for CPUs alone cannot be had: the usual one, several gigabytes larger"; \
		$(UV) $(PACKAGES); \
	fi
endef

.PHONY: help setup demo test matrix wheel check bench faults fuzz docs clean

help:
	@echo "make setup   create .venv and install tubelet with its development tools"
	@echo "make demo    segment and track the bundled video with the bundled model"
	@echo "make test    run the tests"
	@echo "make matrix  the demo and the tests on every Python at hand, and with the oldest libraries; SHORT=1 for a part"
	@echo "make wheel   build a wheel, install it outside the repository and run its demo"
	@echo "make check   formatting, lint, types, the layer rule, and published weaknesses of pinned packages"
	@echo "make bench   speed and memory, side by side"
	@echo "make faults  kill commands and fail their writes at every place, and count what was lost"
	@echo "make fuzz    damage files of every kind for MINUTES=2, and see how their readers take it"
	@echo "make docs    the documentation as pages: site/index.html"

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(NEW_ENOUGH)
	@echo "installing into $(VENV) (once; a few minutes where packages must be downloaded)"
	@if command -v uv >/dev/null 2>&1; then \
		uv venv --quiet --clear --python $(PYTHON) $(VENV) && $(INSTALL_BY_UV); \
	else \
		$(PYTHON) -m venv --clear $(VENV) && \
		$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1" && \
		$(BIN)/python -m pip install --quiet $(PACKAGES); \
	fi
	@touch $@

demo: $(STAMP)
	@$(BIN)/tubelet demo --out runs/demo

# with bytecode, whatever the shell says: every worker imports all tests, and many tests start processes
test: $(STAMP)
	@OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n $(JOBS) --dist worksteal

# environments of their own, in .matrix/
matrix:
	@$(NEW_ENOUGH)
	@$(PYTHON) tests/matrix.py $(if $(SHORT),--short) --jobs $(JOBS)

wheel: $(STAMP)
	@$(BIN)/python tests/wheel.py

check: $(STAMP)
	$(BIN)/ruff format --check src tests benchmarks docs/*.py
	$(BIN)/ruff check src tests benchmarks docs/*.py
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tests/advisories.py

faults: $(STAMP)
	@cd tests && ../$(BIN)/python -m faults

fuzz: $(STAMP)
	@cd tests && ../$(BIN)/python -m fuzz --minutes $(or $(MINUTES),2)

bench: $(STAMP)
	@for script in benchmarks/bench_*.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

docs: $(STAMP)
	$(BIN)/python docs/make_commands.py
	$(BIN)/python docs/make_recipes.py
	$(BIN)/python docs/make_results.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

clean:
	rm -rf $(VENV) .matrix runs site
