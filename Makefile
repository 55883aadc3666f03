# Everything runs in a virtual environment of the checkout; only Python 3.11+ and make are needed.

PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
SIZE ?= 2000
SEED ?= 7
WORKERS ?= 2

.PHONY: demo dev test check docs mutants bench install clean

demo: install  ## a platform of sample data, cleaned before your eyes
	@"$(BIN)/housekeeping" demo --conversations $(SIZE) --seed $(SEED)

dev: install  ## the Dagster web UI on the same data, schedules and sensors ticking
	@"$(BIN)/housekeeping" dev

test: $(VENV)/dev install  ## all tests
	"$(BIN)/pytest" -n $(WORKERS)

check: $(VENV)/dev  ## ruff, mypy, the floors, and what the documents take from the code
	"$(BIN)/ruff" check .
	"$(BIN)/ruff" format --check .
	"$(BIN)/mypy"
	"$(BIN)/lint-imports"
	"$(BIN)/python" docs/generate.py --check

mutants: $(VENV)/dev install  ## each decision to keep something, turned into a deletion: a test has to notice
	"$(BIN)/python" -m housekeeping_pipelines_tests.mutants

docs: $(VENV)/dev  ## what the documents take from the code, written again
	"$(BIN)/python" docs/generate.py

bench: $(VENV)/dev  ## side-by-side measurements
	"$(BIN)/python" benchmarks/import_time.py
	"$(BIN)/python" benchmarks/retention.py
	"$(BIN)/python" benchmarks/orphans.py
	"$(BIN)/python" benchmarks/removal.py
	"$(BIN)/python" benchmarks/watched_documents.py
	"$(BIN)/python" benchmarks/vectors.py

install: $(VENV)/installed
	@"$(BIN)/housekeeping" init > /dev/null

$(VENV)/installed: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed; name it: make PYTHON=/path/to/python3"; exit 2; }
	@test -x "$(BIN)/python" || "$(PYTHON)" -m venv "$(VENV)"
	@echo "Installing into $(VENV) (about a minute)"
	@"$(BIN)/python" -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable .
	@touch $@

$(VENV)/dev: $(VENV)/installed
	@"$(BIN)/python" -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[dev]"
	@touch $@

clean:  ## the environment and all state, the embedded PostgreSQL's data too
	rm -rf "$(VENV)" .housekeeping .env build dist
