# Everything a developer runs. Needs make and Python 3.11 or newer, nothing else: each target sets up what it needs in a
# virtual environment, from locks with hashes, and a second run starts at once.
#
#   make test PYTHON=python3.12             the Python that makes the environment (asked only when there is none yet)
#   make test VENV=/tmp/venv-3.12           another environment
#   make test PYTEST_ARGS="-k assembler"    more arguments for pytest
#   make test JOBS=0                        no parallel test processes
#   make demo DEMO_ARGS="--traces 5"        more arguments for the demo

PYTHON ?=
VENV ?= .venv
JOBS ?= auto
PYTEST_ARGS ?=
DEMO_ARGS ?=
LOCK_ARGS ?=

PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check --quiet
STAMPS := $(VENV)/.stamps
PYTEST := $(PY) -m pytest

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test test-server test-integrations run-integrations run-in-app test-all check lint types fmt bench lock clean package-runtime package-test package-dev package-integrations package-in-app

help: ## Say what there is to make
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-17s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

demo: package-runtime ## Watch live traces of a small agent being scored (no server, no key, no network)
	@$(VENV)/bin/otel-scorer demo $(DEMO_ARGS)

test: package-test ## Run the tests, less those that start real servers
	$(PYTEST) -n $(JOBS) -m "not server and not integrations" $(PYTEST_ARGS)

# pytest exits with 5 when there is no such test. One at a time: each of them starts several processes.
test-server: package-test ## Run the tests that start real servers
	$(PYTEST) -m server $(PYTEST_ARGS) || [ $$? -eq 5 ]

# In two environments of their own: those packages are large, and want other versions of what they share with ours and
# with one another.
test-integrations: ## Run the tests against real packages: whose scorers run here, and which we run beside
	@$(MAKE) run-integrations VENV=$(VENV)-integrations
	@$(MAKE) run-in-app VENV=$(VENV)-in-app

# Some of them bring plugins for pytest, which are not wanted here.
run-integrations run-in-app: export PYTEST_DISABLE_PLUGIN_AUTOLOAD = 1
run-integrations: package-integrations
	$(PYTEST) tests/integrations --ignore tests/integrations/in_app -p xdist -p pytest_timeout -n $(JOBS) -m integrations $(PYTEST_ARGS)

run-in-app: package-in-app
	$(PYTEST) tests/integrations/in_app -p xdist -p pytest_timeout -n $(JOBS) -m integrations $(PYTEST_ARGS)

test-all: export HYPOTHESIS_PROFILE = ci
test-all: test-server test ## Run every test, with more examples for those that make up their own

check: lint types ## Format, lint, import and type checks

lint: $(STAMPS)/dev
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	$(VENV)/bin/lint-imports

types: $(STAMPS)/dev
	$(PY) -m mypy --python-executable $(PY)
	PYRIGHT_PYTHON_IGNORE_WARNINGS=1 $(PY) -m pyright --pythonpath $(PY)

fmt: $(STAMPS)/dev ## Format, and fix what can be fixed
	$(PY) -m ruff format .
	$(PY) -m ruff check --fix .

bench: package-dev ## Run the benchmarks (tests/benchmarks/bench_*.py)
	$(PYTEST) tests/benchmarks -p no:xdist -o python_files='bench_*.py' -o python_functions='bench_*' $(PYTEST_ARGS)

# One resolution for Python 3.11 and newer on every platform; each lock keeps to the versions of the one before it.
# New versions are taken only when asked for: make lock LOCK_ARGS=--upgrade
lock: $(STAMPS)/dev ## Write requirements/*.txt again
	$(call resolve,runtime,)
	$(call resolve,image,--all-extras)
	$(call resolve,test,--all-extras)
	$(call resolve,dev,--all-extras)
	$(call resolve,integrations,--all-extras)
	$(call resolve,in-app,--all-extras --no-binary cuid)
	@# pip goes by the last word on a package, and uv writes this one first.
	@sed -i -e '/^--no-binary cuid$$/d' -e 's/^--only-binary :all:$$/&\n--no-binary cuid/' requirements/in-app.txt
	$(call resolve-alone,server-phoenix)
	$(call resolve-alone,server-mlflow)

clean: ## Remove the environment and all caches
	rm -rf $(VENV) $(VENV)-integrations $(VENV)-in-app build dist .pytest_cache .ruff_cache .mypy_cache .import_linter_cache .hypothesis .benchmarks
	find otel_scorer tests -name __pycache__ -type d -prune -exec rm -rf {} +

compile = UV_CUSTOM_COMPILE_COMMAND="make lock" $(VENV)/bin/uv pip compile --quiet --universal --python-version 3.11 \
	--generate-hashes --only-binary :all: --emit-build-options --no-emit-index-url --no-emit-find-links $(LOCK_ARGS)
resolve = $(compile) $(2) --output-file requirements/$(1).txt pyproject.toml requirements/$(1).in
# Without the package: for servers that it only talks to.
resolve-alone = $(compile) --output-file requirements/$(1).txt requirements/$(1).in

# The package itself goes in when its files differ from those that went in last: a checksum notices files that were
# deleted or checked out again, which time stamps do not.
package-runtime package-test package-dev package-integrations package-in-app: package-%: $(STAMPS)/%
	@sum=$$(find pyproject.toml LICENSE README.md otel_scorer -type f ! -name '*.pyc' -exec cksum {} + 2>/dev/null | sort); \
	if [ "$$sum" != "$$(cat $(STAMPS)/package 2>/dev/null)" ]; then \
		echo "Installing otel_scorer into $(VENV)"; \
		$(PIP) install --no-deps --no-build-isolation . && echo "$$sum" > $(STAMPS)/package; \
	fi

$(STAMPS)/%: requirements/%.txt | $(PY)
	@echo "Installing requirements/$*.txt into $(VENV)"
	@$(PIP) install --require-hashes -r requirements/$*.txt
	@mkdir -p $(STAMPS) && touch $@

$(PY):
	@for python in $(or $(PYTHON),python3 python3.13 python3.12 python3.11 python); do \
		if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then found=$$python; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
		echo "otel_scorer needs Python 3.11 or newer, and $(if $(PYTHON),$(PYTHON) is not that,none was found). Name one: make $(firstword $(MAKECMDGOALS)) PYTHON=/path/to/python3.13" >&2; \
		exit 1; \
	fi; \
	echo "Making $(VENV) with $$("$$found" --version)"; \
	rm -rf $(STAMPS) $(VENV)/bin/python*; \
	"$$found" -m venv $(VENV) || { \
		rm -f $(VENV)/bin/python*; \
		echo "$$found cannot make virtual environments (Debian and Ubuntu: install python3-venv)." >&2; \
		exit 1; \
	}
