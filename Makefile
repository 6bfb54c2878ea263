# Two commands for a newcomer: `make demo` and `make test`. Both set up all that they need.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready

.PHONY: help setup demo test quick lint bench clean

help:
	@echo "make demo   set up, make the demo corpus, train, distil, and print the word error rate table"
	@echo "make test   set up, then run all tests"
	@echo "make quick  the quick tests alone;  make lint  ruff and mypy;  make bench  all measurements"

$(STAMP): pyproject.toml
	$(PYTHON) local/check_python.py
	$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev,demo]'
	touch $@

setup: $(STAMP)

demo: $(STAMP)
	$(BIN)/python recipes/demo/run.py $(ARGS)

test: $(STAMP)
	$(BIN)/python local/test_packages.py
	$(BIN)/python -m pytest $(ARGS)

quick: $(STAMP)
	$(BIN)/python -m pytest -m "not slow" $(ARGS)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: $(STAMP)
	$(BIN)/asr-distill bench $(ARGS)

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
