# Every command of the project, from nothing: each target makes the environment in .venv that it needs. `make help` lists them.

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
WORKERS ?= 2
SOURCES := $(shell find csrc -name '*.cpp' -o -name '*.hpp' -o -name '*.h') CMakeLists.txt pyproject.toml \
  $(wildcard cmake/*) pykernel/observables.py pykernel/distributions.py
CPP := $(shell find csrc bench tests examples \( -name '*.cpp' -o -name '*.hpp' -o -name '*.h' -o -name '*.c' \) 2>/dev/null)

.PHONY: help run test check lint tidy format bench bench-peers docs integration sanitize clean
.DEFAULT_GOAL := help

help: ## this list
	@grep -hE '^[a-z-]+:.*##' Makefile | sed -E 's/:[^#]*## /\t/' | expand -t 14

run: .venv/installed ## the default sweep: table, figures, report, CSV and NetCDF in results/
	$(BIN)/pykernel sweep --default

test: .venv/tools ## the test suite; ARGS="tests/words/test_inits.py -k pickle" for some of it
	$(BIN)/pytest -q -n $(WORKERS) $(ARGS)

# A test of every floor of the house that needs neither Numba nor a minute.
QUICK := house/arrows house/breath house/codebase house/types house/package kernels/stream kernels/product \
  words/activations words/blocks engines/trace

check: .venv/tools ## lint, types and a test of every floor, in half a minute: before each commit
	$(BIN)/ruff check -q .
	$(BIN)/ruff format -q --check .
	$(BIN)/mypy --no-error-summary
	git diff --name-only --diff-filter=d HEAD -- $(CPP) | xargs -r $(BIN)/clang-format --dry-run --Werror
	$(BIN)/pytest -q -n $(WORKERS) -m "not slow and not examples" $(foreach test,$(QUICK),tests/$(dir $(test))test_$(notdir $(test)).py) $(ARGS)

lint: .venv/tools ## format, lint and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run --Werror $(CPP)
	$(BIN)/mypy
	$(MAKE) -s tidy

tidy: .venv/tools ## faults in C++ that clang-tidy finds (the checks of .clang-tidy)
	$(BIN)/ninja -C $(firstword $(wildcard build/cp*-linux_*)) -t compdb > .venv/compile_commands.json
	ls csrc/*.cpp csrc/ops/*.cpp | grep -v csrc/bind | xargs -P $(WORKERS) -n 8 $(BIN)/clang-tidy -p .venv --quiet 2>/dev/null

format: .venv/tools ## lay the code out as `make lint` wants it
	$(BIN)/ruff check --fix --exit-zero --quiet .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(CPP)

bench: .venv/tools ## the asv suite in this environment, as tables; ARGS="--effort full" for all sizes
	$(BIN)/python bench/run.py $(ARGS)

bench-peers: .venv-peers/installed ## side by side with the tools that people use now (a 2 GB environment); ARGS to choose points
	.venv-peers/bin/python bench/peers/side_by_side.py $(ARGS)
	.venv-peers/bin/python bench/peers/transformers.py $(filter --write,$(ARGS))
	.venv-peers/bin/python bench/peers/convolutions.py $(filter --write,$(ARGS))

docs: .venv/docs ## the documentation site in docs/_build/html, every example executed; warnings are errors
	$(BIN)/sphinx-build -W --keep-going -q -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

integration: docs .venv/tools .venv/integration .venv/chromium ## with real PyTorch, JAX, Jupyter and Chromium (2 GB; the browser as root)
	$(BIN)/pytest -q -n $(WORKERS) tests/integration $(ARGS)

sanitize: .venv/cmake ## C and C++ consumers and unit tests under AddressSanitizer, UndefinedBehaviourSanitizer and ThreadSanitizer
	for preset in asan tsan; do \
	  PATH="$(CURDIR)/$(BIN):$$PATH" cmake --preset $$preset -G Ninja && $(BIN)/cmake --build --preset $$preset && \
	  $(BIN)/ctest --preset $$preset || exit 1; done

clean: ## forget environments, builds and results
	rm -rf .venv .venv-peers .boot build build-asan build-tsan build-ubsan dist results bench/.asv docs/_build docs/gallery docs/_shown

# Debian's python3 may lack ensurepip, and so venv; its pip can still fetch virtualenv into a folder.
.venv/made .venv-peers/made:
	$(PYTHON) -m venv $(@D) 2>/dev/null || { rm -rf $(@D); \
	  $(PYTHON) -m pip install --quiet --target .boot virtualenv && PYTHONPATH=.boot $(PYTHON) -m virtualenv --quiet $(@D); }
	touch $@

# What the C and C++ programs need: no Python package of ours.
.venv/cmake: | .venv/made
	$(PIP) cmake ninja
	touch $@

# Editable: Python sources are used where they stand, C++ sources are built again when they are newer.
.venv/installed: $(SOURCES) | .venv/made
	touch $@.began
	$(PIP) -e .
	mv $@.began $@

.venv/tools: pyproject.toml .venv/installed
	$(BIN)/python -c "import tomllib; extras = tomllib.load(open('pyproject.toml', 'rb'))['project']['optional-dependencies']; \
	  print(*extras['test'], *extras['lint'], *extras['bench'], sep='\n')" > .venv/tools.txt
	$(PIP) -r .venv/tools.txt
	-$(BIN)/mypy > .venv/mypy.log 2>&1 # what it finds is kept, and the first `make check` as quick as the next
	touch $@

.venv/docs .venv/integration: pyproject.toml .venv/installed
	$(BIN)/python -c "import tomllib; \
	  print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['optional-dependencies']['$(@F)'], sep='\n')" > $@.txt
	$(PIP) -r $@.txt
	touch $@

.venv/chromium: | .venv/made
	command -v chromium >/dev/null || { apt-get update -qq && \
	  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium >/dev/null; }
	touch $@

.venv-peers/installed: $(SOURCES) | .venv-peers/made
	.venv-peers/bin/python -m pip install --quiet --disable-pip-version-check -r bench/peers/requirements.txt .
	touch $@
