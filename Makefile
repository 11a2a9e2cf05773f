# Needs Python 3.11 to 3.13 (with venv and pip), make, and nothing else. Environments live in .venv-*; a second run
# reuses them. PYTHON chooses the interpreter they are made with: make PYTHON=python3.12 test

PYTHON ?= python3
ONLY ?=
ENGINE ?= prefect
DEMO = $(if $(filter prefect,$(ENGINE)),demo,demo-$(ENGINE))
CORE := .venv-core/bin
PREFECT := .venv-prefect/bin
AIRFLOW := .venv-airflow/bin
PYTEST := -m pytest -q --timeout=300

# Nothing of the developer's shell may change what is checked.
unexport PYTHONPATH PYTHONHOME PYTHONSTARTUP PYTHONWARNINGS PYTEST_ADDOPTS PYTEST_PLUGINS MYPYPATH VIRTUAL_ENV
unexport $(filter CAGG_% PREFECT_% AIRFLOW_% HYPOTHESIS_%,$(.VARIABLES))
export PYTHONSAFEPATH := 1
export PYTHONUTF8 := 1

.NOTPARALLEL:
.DEFAULT_GOAL := help
.PHONY: help test lint types core prefect airflow docs prove demo bench clean
.PHONY: core-environment prefect-environment airflow-environment

help: ## say what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

test: lint types core prefect airflow docs ## lint, types, core, Prefect, Airflow and docs, all against the built wheel
	@echo "make test: everything passed"

lint: core-environment ## style, formatting and who may import whom
	$(CORE)/ruff check .
	$(CORE)/ruff format --check .
	PYTHONSAFEPATH= PYTHONPATH=shared:. $(CORE)/lint-imports

types: core-environment prefect-environment airflow-environment ## mypy --strict on the core and the adapters, pyright on the adapters
	$(CORE)/mypy shared/cagg
	$(PREFECT)/mypy --cache-dir .mypy_cache/prefect cagg_prefect
	$(PREFECT)/basedpyright --pythonpath $(PREFECT)/python cagg_prefect
	$(AIRFLOW)/mypy --cache-dir .mypy_cache/airflow cagg_airflow
	$(AIRFLOW)/basedpyright --pythonpath $(AIRFLOW)/python cagg_airflow

core: core-environment ## the core's tests
	$(CORE)/python $(PYTEST) -n 2 -m "not prove" tests/cagg tests/architecture

prefect: prefect-environment ## the Prefect adapter's tests, with a real server and worker
	$(PREFECT)/python $(PYTEST) -m "not prove" $(wildcard tests/cagg_prefect tests/end_to_end/prefect)

airflow: airflow-environment ## the Airflow adapter's tests, with a real standalone
	$(AIRFLOW)/python $(PYTEST) -m "not prove" $(wildcard tests/cagg_airflow tests/end_to_end/airflow)

docs: prefect-environment airflow-environment ## the code blocks of README and docs, and every example, each with its engine
	$(PREFECT)/python $(PYTEST) -m "not prove" tests/docs
	$(AIRFLOW)/python $(PYTEST) -m "not prove" tests/docs

prove: core-environment prefect-environment airflow-environment ## what takes longer than `make test` may: more examples, longer runs
	$(CORE)/python $(PYTEST) --hypothesis-profile=prove --timeout=3600 -n 2 tests/cagg tests/architecture
	$(PREFECT)/python $(PYTEST) --timeout=3600 $(wildcard tests/cagg_prefect tests/end_to_end/prefect) tests/docs
	$(AIRFLOW)/python $(PYTEST) --timeout=3600 $(wildcard tests/cagg_airflow tests/end_to_end/airflow) tests/docs

demo: need-python ## a deferred nightly validation on a local Prefect, or with ENGINE=airflow on a local Airflow; writes below .demo/ only
	@$(PYTHON) .ci/environment.py $(DEMO)
	@.venv-$(DEMO)/bin/cagg demo --engine $(ENGINE)

BENCH_AIRFLOW = $(filter airflow,$(or $(firstword $(ONLY)),airflow))
BENCH_CORE = $(filter-out airflow,$(or $(firstword $(ONLY)),core))

bench: core-environment $(if $(BENCH_AIRFLOW),airflow-environment) ## the benchmarks; ONLY=word runs those whose name contains the word
	@$(if $(BENCH_CORE),PYTHONPATH=benchmarks $(CORE)/python -m _harness "$(ONLY)",:)
	@$(if $(BENCH_AIRFLOW),PYTHONPATH=benchmarks $(AIRFLOW)/python -m _harness "$(or $(ONLY),airflow)",:)

clean: ## remove environments, builds, caches and the demo
	rm -rf .venv-core .venv-prefect .venv-airflow .venv-demo .venv-demo-airflow build dist .demo .bench .pytest_cache .mypy_cache .ruff_cache \
	  .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: need-python
need-python:
	@command -v $(PYTHON) >/dev/null 2>&1 || { \
	  echo "$(PYTHON) is not on the PATH; install Python 3.11 or later, or name one: make PYTHON=python3.12 test"; exit 2; }

core-environment: need-python
	@$(PYTHON) .ci/environment.py core

prefect-environment: need-python
	@$(PYTHON) .ci/environment.py prefect

airflow-environment: need-python
	@$(PYTHON) .ci/environment.py airflow
