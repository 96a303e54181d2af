# The two commands of a new user are `make quickstart` and `make test`; both make .venv first.
# PYTHON chooses the interpreter (3.11, 3.12 or 3.13), e.g. `make quickstart PYTHON=python3.12`.
# TORCH=cpu leaves CUDA's libraries out of a new .venv, e.g. `make quickstart TORCH=cpu`.

PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
	$$p -c pass 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
RUNS ?= runs/quickstart
TORCH ?=

ifeq ($(filter $(TORCH),cpu),)
ifneq ($(TORCH),)
$(error TORCH=$(TORCH) is unknown; write TORCH=cpu, or leave it out)
endif
else ifneq ($(wildcard .venv/lib/python*/site-packages/nvidia),)
$(warning .venv has CUDA's libraries already and keeps them; make clean first to be rid of them)
endif

.PHONY: quickstart test test-all lint format docs toy gpu-bench clean help

help:
	@echo "make quickstart   train DMD2, control, DP-DMD and DFD on the toy, score them, write a report;"
	@echo "                  with TORCH=cpu a new .venv comes without CUDA, 4 GB smaller"
	@echo "make test         the test suite (minutes)"
	@echo "make test-all     the test suite with its slow tests and the regression check"
	@echo "make lint         ruff (lint and format) and mypy"
	@echo "make docs         the documentation, into build/docs"
	@echo "make gpu-bench    what a GPU must show: times, memory, dtypes, resume; 10 minutes, to be cut off at will"
	@echo "make toy          train the toy's VAE and teachers from seeds (hours)"

quickstart: .venv/.installed
	@$(BIN)/dfdbench quickstart --out $(RUNS)

# One process a core, and one thread in each; a file's tests stay together, as they share fixtures.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n logical --dist loadfile

test: .venv/.installed-dev
	@$(PYTEST)

test-all: .venv/.installed-dev .venv-vbench/.installed
	@DFDBENCH_FUZZ=1000 DFDBENCH_VBENCH_SITE="$$(.venv-vbench/bin/python -c 'import site; \
	print(site.getsitepackages()[0])')" $(PYTEST) -m "slow or not slow"
	@$(BIN)/dfdbench check

lint: .venv/.installed-dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: .venv/.installed-dev
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

# The switch leaves out a notice about MkDocs' successor.
docs: .venv/.installed-dev
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "documentation: build/docs/index.html"

gpu-bench: .venv/.installed
	@$(BIN)/python benchmarks/gpu_suite.py

toy: .venv/.installed
	@$(BIN)/dfdbench toy train

clean:
	rm -rf .venv .venv-vbench .pytest_cache .ruff_cache .mypy_cache

.venv/bin/python:
	@$(PYTHON) -c 'import sys; ok = (3, 11) <= sys.version_info[:2] <= (3, 13); \
	sys.exit(None if ok else "Python 3.11 to 3.13 is needed, %s is %s; try make PYTHON=python3.12" \
	% (sys.executable, sys.version.split()[0]))'
	$(PYTHON) -m venv .venv

# Stand-in weights for metrics without a network; without them make goes on and metrics are skipped.
OFFLINE = $(BIN)/dfdbench assets get offline >/dev/null || \
	echo "some metrics lack their weights; later: $(BIN)/dfdbench assets get offline"

PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

# PyPI's wheels for Linux have CUDA; those for other systems have none. The sizes are du's, of
# Python 3.11 on Linux x86_64 with the pins; the one without CUDA follows by subtraction.
ifeq ($(shell uname -s),Linux)
ifeq ($(TORCH),cpu)
COMING := PyTorch without CUDA, about 3 GB
TAKE_TORCH = $(PIP) --no-deps --index-url https://download.pytorch.org/whl/cpu torch torchvision || \
	{ echo "PyTorch's index gave no such wheel; without TORCH=cpu make takes the usual one" >&2; exit 1; }
else
COMING := PyTorch with CUDA, about 7 GB; without an NVIDIA GPU, make $(MAKECMDGOALS) TORCH=cpu saves 4 GB
endif
else
COMING := PyTorch
endif
TAKE_TORCH ?= true

# `timed` around an install; a venv without its stamp is a first one, and told what is coming.
define timed
	@begun=$$(date +%s); \
	$(2) && \
	echo "$(1) installed in $$(( ($$(date +%s) - begun + 30) / 60 )) min; .venv has $$(du -sh .venv | cut -f1)"
endef

# A stamp is newer than what it was installed from, so `make` installs once and again after a change.
.venv/.installed: pyproject.toml constraints.txt | .venv/bin/python
	@test -e $@ || echo "installing dfdbench into .venv: $(COMING)"
	$(call timed,dfdbench,{ $(TAKE_TORCH); } && $(PIP) -e .)
	@$(OFFLINE)
	@touch $@

.venv/.installed-dev: pyproject.toml constraints.txt | .venv/.installed
	@test -e $@ || echo "installing the tools for tests and documentation"
	$(call timed,the tools,$(PIP) -e '.[dev]')
	@$(PIP) -e '.[reference]' \
		2>/dev/null || echo "libsvm-official was not built: a test against brisque's own code is skipped"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[browser]' \
		2>/dev/null || echo "Playwright was not installed: tests in a browser are skipped"
	@$(OFFLINE)
	@touch $@

# The official VBench, which the parity tests run with the libraries of .venv: no dependencies, so
# that its folder brings no other torch or numpy. openai-clip is built by the pkg_resources of an
# older setuptools.
.venv-vbench/.installed: tests/evaluate/vbench/requirements.txt | .venv/bin/python
	$(BIN)/python -m venv --clear .venv-vbench
	.venv-vbench/bin/python -m pip install --quiet --disable-pip-version-check setuptools==80.9.0 wheel
	.venv-vbench/bin/python -m pip install --quiet --disable-pip-version-check --no-deps \
		--no-build-isolation -r tests/evaluate/vbench/requirements.txt
	@touch $@
