# The two commands of a new user are `make quickstart` and `make test`; both make .venv first.
# PYTHON chooses the interpreter (3.11, 3.12 or 3.13), e.g. `make quickstart PYTHON=python3.12`.

PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
	$$p -c pass 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
RUNS ?= runs/quickstart

.PHONY: quickstart test test-all lint format docs toy gpu-bench clean help

help:
	@echo "make quickstart   train DMD2, control, DP-DMD and DFD on the toy, score them, write a report"
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

# A stamp is newer than what it was installed from, so `make` installs once and again after a change.
.venv/.installed: pyproject.toml constraints.txt | .venv/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@$(OFFLINE)
	@touch $@

.venv/.installed-dev: pyproject.toml constraints.txt | .venv/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[reference]' \
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
