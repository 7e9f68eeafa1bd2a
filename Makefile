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
# Neighbours stay with one worker, so that what the tests of a file share is made once.
WORKERS := -n $(JOBS) --dist worksteal

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
	$(BIN)/python -m pytest -q $(WORKERS) -m 'not slow and not gpu'

check: env
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/lint-imports

format: env
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

slow: env
	$(BIN)/python -m pytest -q $(WORKERS) -m slow

# What a wheel without torch can break and the tree cannot: a file left out, the entry
# point, templates and other data found beside the code, an import of torch, compiled
# kernels cached where the package lies. The packages are compared with the tree file
# by file; what the same files compute is `make test`'s matter, so that of the tests
# only those of the interface, of the reports and of one problem of every method and
# every kind run again, from another folder.
WHEEL_TESTS := test_layers.py \
	$(addprefix hjbpde/test_,problem.py catalogue.py solution.py cli.py plotting.py \
		progress.py trajectories.py mdp.py every_kind.py \
		closed_forms.py marching.py explicit_solve.py sweeping.py semi_lagrangian.py) \
	$(addprefix verification/test_,cross_check.py convergence.py report.py)

wheel-test: env
	rm -rf dist build .wheel-test
	$(BIN)/python -m build --wheel -o dist .
	$(PYTHON) -m venv $(WHEEL_VENV)
	$(WHEEL_VENV)/bin/python -m pip install -q -c constraints.txt dist/*.whl pytest pytest-xdist hypothesis
	for package in hjbpde neural verification; do \
		diff -r -x __pycache__ $$package $(WHEEL_VENV)/lib/python*/site-packages/$$package || exit 1; \
	done
	mkdir -p .wheel-test/there
	cp -r tests .wheel-test/there/tests
	cp pyproject.toml .wheel-test/there/pyproject.toml
	cd .wheel-test/there && ../venv/bin/python -m pytest -q $(WORKERS) -m 'not slow and not gpu and not repository' $(addprefix tests/,$(WHEEL_TESTS))

evidence: env
	$(BIN)/python -m benchmarks
	PYTHONPATH=. $(BIN)/python benchmarks/sparse_lu.py | tee benchmarks/results/$$(date +%F)-sparse_lu.txt

clean:
	rm -rf build dist .wheel-test .pytest_cache .ruff_cache .hypothesis .import_linter_cache
