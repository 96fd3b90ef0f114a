# Everything runs in .venv; `make install` makes it, and every other target makes it first if need be.
PYTHON ?= python3
BIN := .venv/bin
FMLM := $(BIN)/fmlm

.DEFAULT_GOAL := help
.PHONY: help install demo test test-slow test-oldest test-newest test-wheel check format bench bench-gpu clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

install: .venv/installed  ## make .venv with fmlm and the test tools

.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "fmlm needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1). Try: make install PYTHON=python3.12"; exit 2; }
	@echo "installing into .venv (torch is the largest part) ..."
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: install  ## from text to a model in a few minutes: tokenize python-docs, pre-train, show what came of it
	@$(FMLM) tokenize python-docs --train-tokenizer wordpiece --vocab-size 8192 --lowercase --out demo/store --resume
	@$(FMLM) pretrain configs/demo.yaml --data demo/store --out demo/run --resume
	@echo
	@echo "Now with your own text (.txt or .jsonl, also .gz; files, folders or globs):"
	@echo "  $(FMLM) tokenize YOUR/TEXT --train-tokenizer wordpiece --lowercase --out my-store"
	@echo "  $(FMLM) pretrain --data my-store --model bert-mini --masking fully-explored --epochs 14 --out my-run"

test: install  ## the quick tests
	@PYTHONUTF8=1 $(BIN)/python -m pytest -m "not slow" -n logical --dist loadfile

test-slow: install  ## the long tests, and the properties once more with examples drawn anew
	@PYTHONUTF8=1 $(BIN)/python -m pytest -m slow
	@PYTHONUTF8=1 $(BIN)/python -m pytest -m "hypothesis and not slow" --hypothesis-profile explore -n logical --dist loadfile

# Environments of their own, which stay; torch may bring gigabytes each time.
.venv-oldest/installed .venv-newest/installed: pyproject.toml tests/packaging/oldest.py
	@$(PYTHON) -m venv $(@D)
	@{ [ $(@D) != .venv-oldest ] || $(PYTHON) tests/packaging/oldest.py; } > $(@D)/constraints.txt
	@$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --constraint $(@D)/constraints.txt --editable '.[dev,wandb,trackio]'
	@touch $@

test-oldest: .venv-oldest/installed  ## the quick tests with the lowest versions that pyproject.toml names (PYTHON=python3.11)
test-newest: .venv-newest/installed  ## the same with the newest that there are
test-oldest test-newest:
	@PYTHONUTF8=1 $(<D)/bin/python -m pytest -m "not slow" -n logical --dist loadfile

test-wheel:  ## build dist/*.whl, install it in an environment of its own (PYTHON=...), and use it there
	@rm -rf .venv-wheel build dist
	@$(PYTHON) -m venv .venv-wheel
	@.venv-wheel/bin/python -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir dist .
	@.venv-wheel/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt dist/fmlm-*.whl
	@.venv-wheel/bin/python tests/packaging/installed.py $(CURDIR)/.venv-wheel/bin/fmlm

check: install  ## lint, formatting, types, and the rooms' imports
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo

format: install  ## put the code in order
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: install  ## measure speed on the CPU against transformers (prints tables; asserts nothing)
	@$(BIN)/python -m tests.benchmarks

# On a bare machine there may be all packages and no .venv, and time is short.
bench-gpu:  ## the same on a GPU, in six minutes at most; installs nothing
	@PYTHONPATH=. $(firstword $(wildcard $(BIN)/python) $(PYTHON)) -m tests.benchmarks.gpu

clean:  ## remove the demo, what was built, and all caches, but no environment
	@rm -rf demo build dist .pytest_cache .hypothesis .ruff_cache .mypy_cache .import_linter_cache
