# `make` alone prints the targets. Everything is set up from nothing: the virtual environments from
# the hashed locks in requirements/, RabbitMQ and PostgreSQL as described in compose/.
SHELL := /bin/sh
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
.NOTPARALLEL:

# More arguments for pytest, as in: make test ARGS="tests/unit -k wheel -n 0"
ARGS ?=
# 4.0 or 4.3, for a private node of that release: make test RABBITMQ=4.3
RABBITMQ ?=
export LEVERET_RABBITMQ := $(or $(RABBITMQ),$(LEVERET_RABBITMQ))
# Tests wait more than they compute: three processes for two processors. Which has none left takes
# over from the others, so that slow tests and quick ones run side by side.
PYTEST := -m pytest -n auto --dist worksteal
export PYTEST_XDIST_AUTO_NUM_WORKERS ?= $(shell echo $$(( ($$(nproc 2>/dev/null || echo 2) * 3 + 1) / 2 )))
BIN := .venv/bin
key = $(shell cat requirements/$(1).lock pyproject.toml | cksum | cut -d' ' -f1)
DEMO := .venv/.demo-$(call key,demo)
DEV := .venv/.dev-$(call key,dev)
CONTAINERS := .venv/.containers-$(call key,containers)
BENCH := .venv-bench/.bench-$(call key,bench)

.PHONY: help
help: ## Print this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-18s %s\n", $$1, $$2 }' Makefile

.PHONY: setup
setup: $(DEV) ## Create .venv with everything that developing needs

.PHONY: up
up: $(DEMO) ## Start RabbitMQ, PostgreSQL and workers of this checkout; write .stack/env
	@$(BIN)/python -m compose.native up

.PHONY: down
down: ## Stop them all; their data stays
	@if [ -d .stack ]; then $(MAKE) -s $(DEMO) && $(BIN)/python -m compose.native down; fi

.PHONY: status
status: $(DEMO) ## Tell what of the stack runs
	@$(BIN)/python -m compose.native status

.PHONY: demo
demo: up ## Run the main job on real input: a year of flights, reports, mails, failures
	@$(BIN)/python -m compose.demo $(ARGS)

.PHONY: test
test: $(DEV) up ## Run all tests, in parallel, on the stack (ARGS="…" goes to pytest)
	@$(BIN)/python $(PYTEST) --durations=10 $(ARGS)

PYTHON ?= 3.13
.PHONY: test-python
test-python: .venv-$(PYTHON)/.dev-$(call key,dev) up ## Run the tests on another Python (PYTHON=3.13), in an environment of its own
	@.venv-$(PYTHON)/bin/python $(PYTEST) $(ARGS)

.PHONY: k8s-test
k8s-test: $(DEV) ## Check the manifests of k8s/ alone; they are part of `make test` as well
	@$(BIN)/python $(PYTEST) tests/unit/k8s $(ARGS)

OVERLAY ?= prod
.PHONY: k8s-dry-run
k8s-dry-run: $(DEV) ## Have the API server of your kubectl context check an overlay (OVERLAY=prod)
	@$(BIN)/kubectl apply --server-side --dry-run=server -k k8s/overlays/$(OVERLAY)

.PHONY: lint
lint: $(DEV) ## Check style and formatting
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

.PHONY: format
format: $(DEV) ## Repair style and formatting where a tool can
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

.PHONY: types
types: $(DEV) ## Check types
	@$(BIN)/mypy

.PHONY: imports
imports: $(DEV) ## Check which folder imports which
	@$(BIN)/lint-imports

.PHONY: docs
docs: $(DEV) ## Write the generated pages of docs/reference anew, and the site into build/site
	@$(BIN)/python -m docs.tools.generate
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

.PHONY: dashboards
dashboards: $(DEV) ## Build the dashboards anew, for Grafana in compose/ and k8s/
	@$(BIN)/python -m compose.grafana
	@$(BIN)/python -m k8s.generate

.PHONY: dashboard-pictures
dashboard-pictures: $(DEV) up ## Let a stack work for 12 minutes, and draw the dashboards from it
	@$(BIN)/python -m tests.support.dashboard_pictures

.PHONY: k8s
k8s: $(DEV) ## Write anew what k8s/ has from elsewhere: users, alert rules, dashboards
	@$(BIN)/python -m k8s.generate

.PHONY: freeze
freeze: $(DEV) docs up ## Write anew in tests/releases what this version is to those who will run it
	@$(BIN)/python -m tests.releases freeze

.PHONY: wheel
wheel: $(DEV) ## Build the wheel into dist/, and try it in an empty environment
	@$(BIN)/python .ci/check_wheel.py

.PHONY: bench
bench: $(BENCH) ## Measure against Dramatiq and others (ROUNDS=5 ONLY=drain); write build/bench.json
	@.venv-bench/bin/python -m tests.benchmarks \
		$(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(ONLY),--only $(ONLY)) $(ARGS)

.PHONY: image
image: ## Build the images leveret and leveret-actors with the Docker engine that runs here
	@sh compose/image/build.sh

.PHONY: image-test
image-test: $(CONTAINERS) ## Build the images in a private Docker engine and check them (root, minutes)
	@LEVERET_CONTAINERS=1 $(BIN)/python -m pytest -n 0 -s tests/containers/test_image.py $(ARGS)

.PHONY: compose-test
compose-test: $(CONTAINERS) ## Run compose.yaml in a private Docker engine and kill its parts (root, minutes)
	@LEVERET_CONTAINERS=1 $(BIN)/python -m pytest -n 0 -s tests/containers/test_compose.py $(ARGS)

.PHONY: gates
gates: $(DEV) up ## Run the tests that are release gates, and say how each gate went
	@$(BIN)/python $(PYTEST) -m gate $(ARGS)

.PHONY: ci
ci: $(DEV) ## All that must pass before a change is merged, gate after gate
	@$(BIN)/python .ci/ci.py lint types imports wheel test

.PHONY: release-check
release-check: $(DEV) ## Say what is to be done before this version can be released
	@$(BIN)/python -m tests.releases check

.PHONY: lock
lock: ## Resolve the dependencies anew, into requirements/*.lock
	@sh requirements/lock.sh

.PHONY: clean
clean: ## Stop the stack; remove its data, the environments and all that was built
	@if [ -d .stack ]; then $(MAKE) -s $(DEMO) && $(BIN)/python -m compose.native clean; fi
	@if [ -L .stack/data ]; then rm -rf "$$(readlink .stack/data)"; fi
	@rm -rf .stack .venv .venv-bench build dist .mypy_cache .pytest_cache .ruff_cache
	@rm -rf .hypothesis .import_linter_cache

# An environment is new when its lock is. Its interpreter is looked for only then.
.venv/bin/python .venv-bench/bin/python:
	@python=$$(compose/native/find-python.sh) && echo "creating $(@D:/bin=) with $$python" && \
		"$$python" -m venv $(@D:/bin=)

$(DEMO): | .venv/bin/python
	@requirements/install.sh .venv demo $@

$(DEV): | .venv/bin/python
	@requirements/install.sh .venv dev $@
	@touch $(DEMO)

.venv-$(PYTHON)/.dev-$(call key,dev): | .venv-$(PYTHON)/bin/python
	@requirements/install.sh .venv-$(PYTHON) dev $@

.venv-$(PYTHON)/bin/python:
	@for python in python$(PYTHON) "$${PYENV_ROOT:-$$HOME/.pyenv}"/versions/$(PYTHON).*/bin/python; do \
		case $$("$$python" --version 2>/dev/null) in \
			"Python $(PYTHON)."*) exec "$$python" -m venv $(@D:/bin=) ;; \
		esac; \
	done; \
	echo "no Python $(PYTHON) on PATH, nor of pyenv's: install one" >&2; exit 1

$(CONTAINERS): $(DEV) | .venv/bin/python
	@requirements/install.sh .venv containers $@

$(BENCH): | .venv-bench/bin/python
	@requirements/install.sh .venv-bench bench $@
