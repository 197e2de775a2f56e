# Two commands do everything on a fresh clone: `make demo` and `make test`.
# PYTHON=python3.12 make test   takes another interpreter (3.11 or newer).

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: demo test long attacks lint clean

demo: $(READY)
	$(BIN)/python -m experiments.digits --out out/digits

# A thread a process: those that share cores wait for each other's threads.
test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal

# What takes minutes a test, left out above.
long: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal -m long

# What must not give a wrong number, a traceback or run code; SHARE=0.1 for a tenth.
SHARE ?= 1
attacks: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.attacks --share $(SHARE)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The versions in constraints.txt are the tested ones.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else "probgen needs Python 3.11 or newer, found %d.%d; try: make PYTHON=python3.12" % v[:2])'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --config-settings editable_mode=compat --editable '.[dev]'
	@touch $(READY)

clean:
	rm -rf .venv out build dist *.egg-info .mypy_cache .ruff_cache .import_linter_cache
