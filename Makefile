PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test check bench quality screenshot clean
.DELETE_ON_ERROR:

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable . --group dev
	touch $(STAMP)

demo: $(STAMP)  ## a simulated cluster of 16 racks
	$(BIN)/coldaisle demo

test: $(STAMP)  ## every test this machine can run
	$(BIN)/pytest

check: $(STAMP)  ## what has to hold before a change goes in; the built wheel and sdist are among the tests
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/mypy --allow-untyped-defs --allow-incomplete-defs --allow-untyped-calls tests
	$(BIN)/lint-imports
	$(BIN)/vermin --target=3.6- --no-tips --violations sources/probe.py
	$(MAKE) test

bench: $(STAMP)  ## the table of budgets; ROW=name for one line of it
	$(BIN)/python -m benchmarks $(ROW)

quality: $(STAMP)  ## how good the diagnosis is, on the test split; ARGS='--split tuning --quick --polls 5 --mistakes' for a part
	$(BIN)/python -m benchmarks.quality $(if $(ARGS),$(ARGS),--split test)

screenshot: $(STAMP)  ## the README's picture, from the demo
	$(BIN)/python -m benchmarks.screenshot .dev/screenshot.svg

clean:  ## everything that make builds
	rm -rf $(VENV) dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
