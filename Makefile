# `make help` lists the targets. Needed: git, make, bash and Python >= 3.11 with venv.
# Everything is installed into $(VENV) from the locks under requirements/; stamps keep re-runs quick.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.NOTPARALLEL:
MAKEFLAGS += --no-print-directory

PYTHON ?= $(shell scripts/find-python.sh)
VENV ?= .venv
CONFIG ?=
ARGS ?=
# Most tests wait most of the time: run more of them at once than there are cores.
JOBS ?= 4

bin := $(VENV)/bin
stamps := $(VENV)/.stamps
pip := $(bin)/python -m pip --disable-pip-version-check --quiet
sources := cluster loadtest scripts tests benchmarks
# A folder with a package-lock.json gets its node_modules; npm writes the file named here last.
test_node := $(patsubst %/package-lock.json,%/node_modules/.package-lock.json,\
	$(wildcard tests/conformance/package-lock.json tests/conformance/*/package-lock.json))

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo "  PYTHON=python3.12   the interpreter the environment is made with"
	@echo "  CONFIG=my.toml      the configuration of make run, instead of the one for development"
	@echo "  ENGINE=own          make test-compose starts an engine of its own, even where yours answers"
	@echo "  ENGINE=if-permitted  make test-compose and test-swarm say that they are skipped where none may be started"
	@echo "  ARGS='-k recover'   passed to ws-cluster, pytest or the benchmarks"

.PHONY: install
install: $(stamps)/test $(stamps)/package ## Install what the checks and the tests need

.PHONY: run
run: $(stamps)/package ## Start a cluster in the foreground; Ctrl-C drains and stops it
	@exec $(bin)/ws-cluster up $(if $(CONFIG),--config $(CONFIG),--development) $(ARGS)

.PHONY: test
test: test-system $(stamps)/test $(stamps)/package $(test_node) ## Install what the tests need and run them
	@CI=true exec $(bin)/python scripts/run_tests.py --jobs $(JOBS) -- $(ARGS)

.PHONY: test-full
test-full: test-system $(stamps)/test $(stamps)/package $(test_node) ## All tests, the long ones too
	@CI=true exec $(bin)/python -m pytest $(ARGS)

.PHONY: test-system
test-system:
	@scripts/test-system.sh

.PHONY: check
check: $(stamps)/test $(stamps)/package ## Lint, format, types, import layers, other Pythons: what CI checks
	$(bin)/ruff check $(sources)
	$(bin)/ruff format --check $(sources)
	printf '%s\n' 3.11 3.12 3.13 | xargs -P 2 -n 1 $(bin)/mypy --python-version
	$(bin)/lint-imports
	$(bin)/python scripts/reference.py --check
	scripts/check-versions.sh --fast

.PHONY: check-versions
check-versions: ## Types, unit and contract tests under Python 3.12 and 3.13
	@scripts/check-versions.sh $(ARGS)

.PHONY: format
format: $(stamps)/test ## Format the code and apply the safe fixes
	$(bin)/ruff format $(sources)
	$(bin)/ruff check --fix $(sources)

.PHONY: reference
reference: $(stamps)/package ## Write docs/reference/ from the code
	$(bin)/python scripts/reference.py

.PHONY: dashboards
dashboards: $(stamps)/test ## Write docker/grafana/dashboards/ from scripts/dashboards/
	$(bin)/python -m scripts.dashboards

.PHONY: dashboards-drawn
dashboards-drawn: $(stamps)/test $(stamps)/package tests/drawing/node_modules/.package-lock.json ## Draw the dashboards of a loaded cluster
	@exec $(bin)/python -m tests.drawing docs/img $(ARGS)

.PHONY: bench
bench: $(stamps)/package ## Measure against the peers, under ten minutes
	@exec $(bin)/python -m benchmarks --write-docs $(ARGS)

.PHONY: bench-full
bench-full: $(stamps)/package ## All peers, all loads, five rounds
	@exec $(bin)/python -m benchmarks --full --write-docs $(ARGS)

.PHONY: drill
drill: test-system $(stamps)/loadtest $(stamps)/package ## Make every alert fire and resolve, in compressed time
	@exec timeout --foreground 15m $(bin)/ws-cluster drill --all $(ARGS)

.PHONY: drill-short
drill-short: test-system $(stamps)/loadtest $(stamps)/package ## What CI runs: eleven alerts, and a short soak
	@timeout --foreground 8m $(bin)/ws-cluster drill --seed $(ARGS)
	@exec timeout --foreground 4m $(bin)/ws-cluster soak --minutes 30

.PHONY: drill-production
drill-production: test-system $(stamps)/loadtest $(stamps)/package ## Every alert with its real durations: about an hour
	@exec timeout --foreground 120m $(bin)/ws-cluster drill --all --profile production --stages 6 --together 4 $(ARGS)

.PHONY: soak
soak: test-system $(stamps)/loadtest $(stamps)/package ## Twenty real minutes of load in which nothing may fire
	@exec $(bin)/ws-cluster soak --profile production $(ARGS)

# ENGINE=own and ENGINE=if-permitted.
stand_in = $(bin)/python -m tests.compose.stand_in $(if $(filter if-permitted,$(ENGINE)),--if-permitted)
engine = $(stand_in) $(if $(filter own,$(ENGINE)),--always) --

.PHONY: test-compose
test-compose: $(stamps)/test ## The stories of docker/compose.yml on your Docker engine, or on one of its own
	@exec $(engine) $(bin)/python scripts/run_tests.py --stories compose -- $(ARGS)

.PHONY: test-swarm
test-swarm: $(stamps)/test ## The stories of docker/stack.yml, always on an engine of its own: yours is made no swarm
	@exec $(stand_in) --always -- $(bin)/python scripts/run_tests.py --stories swarm -- $(ARGS)

.PHONY: compose-images
compose-images: $(stamps)/test ## Pull or make the images that make test-compose needs
	@exec $(engine) true

.PHONY: lock
lock: ## Write requirements/*.txt again (ARGS=--upgrade for newer versions)
	@PYTHON="$(PYTHON)" scripts/lock.sh $(ARGS)

.PHONY: clean
clean: ## Remove the environment and every cache; the state directory stays
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -path ./.git -prune -o \( -name __pycache__ -o -name node_modules \) -type d -prune -exec rm -rf {} +

$(stamps)/venv:
	@python="$(PYTHON)"; \
	[ -n "$$python" ] || exit 69; \
	"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python >= 3.11 is needed and $$python is not: name another with make PYTHON=..." >&2; exit 69; }; \
	echo "Making $(VENV) with $$("$$python" --version)"; \
	"$$python" -m venv $(VENV)
	@mkdir -p $(stamps)
	@touch $@

$(stamps)/run: requirements/run.txt $(stamps)/venv
	@echo "Installing the locked dependencies"
	@$(pip) install --require-hashes --requirement $<
	@touch $@

$(stamps)/package: pyproject.toml cluster/__init__.py $(stamps)/run
	@$(pip) install --no-deps --no-build-isolation --editable .
	@# A worker that has dropped root cannot write these: each would compile its 150 modules at every start.
	@$(VENV)/bin/python -m compileall -q cluster
	@touch $@

$(stamps)/loadtest: requirements/loadtest.txt $(stamps)/run
	@echo "Installing what the drills need"
	@$(pip) install --require-hashes --requirement $<
	@touch $@

$(stamps)/test: requirements/test.txt $(stamps)/run
	@echo "Installing what the tests need"
	@$(pip) install --require-hashes --requirement $<
	@touch $@

%/node_modules/.package-lock.json: %/package-lock.json
	@command -v npm >/dev/null || { echo "npm is missing: install Debian's packages nodejs and npm, or run 'make test' as root" >&2; exit 69; }
	@echo "Installing the locked packages of $*"
	@cd $* && npm ci --no-audit --no-fund --loglevel=error </dev/null
	@touch $@
