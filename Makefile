# Everything needs only Python 3.11 or newer, make and the package index.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
WHEEL_VENV := .wheel-test/venv
JOBS ?= 2
# One thread a process: two test workers, and sums in a fixed order.
export OMP_NUM_THREADS ?= 1
export MPLBACKEND ?= Agg

.PHONY: env demo test check format slow wheel-test evidence clean

env: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 11) or sys.exit(f"hjbpde needs Python 3.11 or newer, this is {v.major}.{v.minor}; try make PYTHON=python3.12")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -e '.[neural,dev]' -c constraints.txt
	touch $(STAMP)

demo: env
	$(BIN)/hjbpde demo --out demo-report

test: env
	$(BIN)/python -m pytest -q -n $(JOBS) -m 'not slow and not gpu'

check: env
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/lint-imports

format: env
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

slow: env
	$(BIN)/python -m pytest -q -n $(JOBS) -m slow

# The wheel in a clean environment without torch, its tests from another folder.
wheel-test: env
	rm -rf dist build .wheel-test
	$(BIN)/python -m build --wheel -o dist .
	$(PYTHON) -m venv $(WHEEL_VENV)
	$(WHEEL_VENV)/bin/python -m pip install -q -c constraints.txt dist/*.whl pytest pytest-xdist hypothesis
	mkdir -p .wheel-test/there
	cp -r tests .wheel-test/there/tests
	cp pyproject.toml .wheel-test/there/pyproject.toml
	cd .wheel-test/there && ../venv/bin/python -m pytest -q -n $(JOBS) -m 'not slow and not gpu and not repository'

evidence: env
	$(BIN)/python -m benchmarks
	PYTHONPATH=. $(BIN)/python benchmarks/sparse_lu.py | tee benchmarks/results/$$(date +%F)-sparse_lu.txt

clean:
	rm -rf build dist .wheel-test .pytest_cache .ruff_cache .hypothesis .import_linter_cache
