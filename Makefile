# Two commands do everything on a fresh machine: `make demo` and `make test`.
.DEFAULT_GOAL := help
BIN := .venv/bin
# Where a replay after each turn may make a difference: tests of other folders start no engine, and the
# other commands only read what an engine has written. What is replayed is the same on every store.
WITH_ENGINE := tests/cli/test_running.py tests/cli/test_run_among_others.py tests/e2e tests/engine \
	tests/patterns tests/seed1 tests/seed3 tests/seed4 tests/simulation
# Of those that kill processes: where workflow code goes on in another one. How workers lose each other
# and the database is the same without a replay.
WITH_KILLS := tests/crash/test_kills.py tests/crash/test_families.py tests/crash/test_limits.py tests/crash/test_people.py
STAMP := .venv/.perdure-setup
NEEDED := import sys, sqlite3, ssl; sys.exit(sys.version_info < (3, 11))

.PHONY: help setup demo test check sim bench bench-postgres clean

help:  ## Show this list
	@sed -n 's/^\([a-z][a-z]*\):.*## \(.*\)/\1\t\2/p' Makefile | expand -t 10

setup: $(STAMP)  ## Create .venv and install Perdure with its development tools

# An environment that works is kept, whatever made it.
$(STAMP): pyproject.toml Makefile
	@if $(BIN)/python -c '$(NEEDED)' 2>/dev/null; then :; \
	elif command -v uv >/dev/null 2>&1; then uv venv --clear --python '>=3.11' .venv; \
	else \
	  for python in python3.13 python3.12 python3.11 python3 ''; do \
	    "$$python" -c 'import ensurepip, venv; $(NEEDED)' 2>/dev/null && break; \
	  done; \
	  if [ -z "$$python" ]; then \
	    echo 'Perdure needs Python 3.11 or newer with venv, ssl and sqlite3, and found none.'; \
	    echo 'Install one (Debian, Ubuntu: apt install python3 python3-venv), or uv, and try again.'; \
	    exit 1; \
	  fi; \
	  echo "creating .venv with $$python"; "$$python" -m venv --clear .venv; \
	fi
	@if [ -x $(BIN)/pip ]; then $(BIN)/python -m pip install -qq --disable-pip-version-check -e '.[dev]'; \
	else uv pip install -q --python $(BIN)/python -e '.[dev]'; fi
	@touch $@

demo: setup  ## Run an order workflow, kill its worker half way, and watch it finish
	@$(BIN)/perdure demo

# Twice: the second time every run is evicted after each turn, so that what is live is what is replayed.
# Each module is compiled once, not by each process: those that tests start write no compiled files
# (tests/conftest.py), and nobody does where the caller's environment has this variable.
test: export PYTHONDONTWRITEBYTECODE =
test: check  ## Run every check and every test (the ones that kill processes two at a time)
	$(BIN)/python -m compileall -q src
	$(BIN)/pytest -q -n auto --ignore=tests/crash
	$(BIN)/pytest -q -n 2 tests/crash
	PERDURE_ALWAYS_REPLAY=1 PERDURE_SIM_SEEDS=120 $(BIN)/pytest -q -n auto -k 'not postgres' $(WITH_ENGINE)
	PERDURE_ALWAYS_REPLAY=1 $(BIN)/pytest -q -n 2 $(WITH_KILLS)

check: setup  ## Check format, style, types and floors
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/lint-imports --no-logo

sim: setup  ## Run the simulator: SEED=7 or fleet-7 repeats one run, SEEDS=500 tries that many
	$(if $(SEED),PERDURE_SIM_SEED=$(SEED)) $(if $(SEEDS),PERDURE_SIM_SEEDS=$(SEEDS)) $(BIN)/pytest -q -n auto \
	  $(if $(SEED),-n 0 -s) tests/simulation

bench: setup  ## Measure, beside DBOS: ARGS='--only one_step --no-peers'
	$(BIN)/python bench/run.py $(ARGS)

bench-postgres: setup  ## The same on PostgreSQL, in a cluster of its own
	$(BIN)/python bench/run.py --postgres $(ARGS)

clean:  ## Remove what make made
	rm -rf .venv build dist bench/.data bench/.peers .*_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
