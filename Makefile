# make demo   sets up .venv, then runs the two examples
# make test   sets up .venv, then runs every check and test
# PYTHON names the interpreter that .venv is made with.

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready

.PHONY: demo test check bench coverage docs clean

demo: $(READY)
	$(BIN)/python docs/examples/earthquakes.py
	$(BIN)/sumout query docs/examples/data/networks/alarm.bif \
		--evidence HRBP=HIGH --evidence CO=LOW --evidence BP=LOW --evidence HISTORY=TRUE

test: check
	$(BIN)/python -m pytest -n 2

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy

bench: $(READY)
	$(BIN)/python -m pytest benchmarks --benchmark-only --benchmark-columns=median,iqr,rounds --benchmark-sort=fullname

coverage: $(READY)
	$(BIN)/python -m pytest -n 2 --cov --cov-report=term

docs: $(READY)
	$(BIN)/pip install --quiet -c constraints.txt -e '.[docs]'
	$(BIN)/mkdocs build --strict

# Made last, so that an installation that broke off is begun again.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf .venv build site dist
