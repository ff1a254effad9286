# Two commands do all the set-up: `make up` runs the main job, `make test` passes the tests.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
ROLES ?=
MINUTES ?= 1
PROCESSES ?= 2
SOURCES := core stream workers operator console cli
RESOLVE = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
  --no-annotate --no-emit-index-url --custom-compile-command 'make lock'
NATIVE := $(wildcard workers/chandlery/workers/segment/*.[ch])

PIP = $(BIN)/python -m pip install --disable-pip-version-check

# Pip's lines on the locked packages as one line that counts: fetched ones as they come, then those that are in place.
define COUNTED
  all=$$(grep -c == requirements.lock) begun= ; \
  while read -r -t 1 word name _ || [ $$? -gt 128 ]; do \
    case $$word in \
      Collecting) here=$$((here + 1)); printf '\r\033[K   fetching %d of %d: %s' $$here $$all "$${name%%==*}";; \
      Installing) begun=yes;; \
      "") there=($(VENV)/lib/python*/site-packages/*.dist-info); \
        [ -z "$$begun" ] || printf '\r\033[K   unpacking %d of %d' $$(($${#there[@]} < here ? $${#there[@]} : here)) $$here;; \
    esac; \
  done; printf '\r\033[K'
endef

.DEFAULT_GOAL := help
.PHONY: help up test proof e2e images bench bench-peers fuzz lint format docs dashboards crds manifests lock setup clean

help: ## what can be made
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-11s %s\n", $$1, $$2}'

setup: $(VENV)/.built ## virtual environment, locked packages, C extension (the others do it by themselves)

$(VENV)/.packages: requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Chandlery needs Python 3.11 or newer; $(PYTHON) is older. Try: make PYTHON=python3.11 …" >&2; exit 3; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null \
	  || { echo "Python's venv module is missing. On Debian or Ubuntu: apt-get install python3-venv" >&2; exit 3; }
	@echo "== packages into $(VENV) (first time: one to three minutes)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@if [ -t 1 ] && [ -z "$$CI" ]; then set -o pipefail; $(PIP) --progress-bar off -r requirements.lock | { $(COUNTED); }; \
	  else $(PIP) --quiet -r requirements.lock; fi
	@touch $@

$(VENV)/.built: $(VENV)/.packages pyproject.toml setup.py $(NATIVE)
	@command -v $${CC:-cc} >/dev/null \
	  || { echo "A C compiler is missing. On Debian or Ubuntu: apt-get install gcc libc6-dev python3-dev" >&2; exit 3; }
	@$(BIN)/python -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))' \
	  || { echo "Python's headers are missing. On Debian or Ubuntu: apt-get install python3-dev" >&2; exit 3; }
	@echo "== building the C extension"
	@$(PIP) --quiet --no-deps --no-build-isolation -e .
	@touch $@

up: setup ## the main job: the quickstart's traders on this machine (Ctrl-C ends it); ARGS='--for 60s' for more
	@$(BIN)/chandlery up -f examples/quickstart $(ARGS)

test: setup ## every test but those on a Kubernetes; ARGS='-k segment' for some, PROCESSES=0 for one after the other
	@$(BIN)/python -m pytest -n $(PROCESSES) --dist loadfile $(ARGS)

proof: setup ## the segment's protocol, checked by spin, and mutations that it must catch; needs spin and gcc
	@$(BIN)/python -m proofs $(ARGS)

e2e: setup images ## the tests on a real Kubernetes on this machine, or on the cluster of KUBECONFIG; needs root
	@test -n "$$CHANDLERY_E2E_KUBECONFIG$$KUBECONFIG" || $(BIN)/python -m tests.e2e.cluster build
	@test -n "$$CHANDLERY_E2E_KUBECONFIG$$KUBECONFIG" || $(BIN)/python -m tests.e2e.flux \
	  || echo "Flux's controller can't be built here: its tests are skipped, in CI they fail"
	@$(BIN)/python -m tests.e2e.jaeger || echo "Jaeger can't be built here: its tests are skipped, in CI they fail"
	@$(BIN)/python -m pytest tests/e2e $(ARGS)

images: setup ## images as archives in build/images, without Docker; ROLES='workers stream' for some
	@$(BIN)/python -m images $(ROLES)

$(VENV)/.peers: $(VENV)/.packages benchmarks/requirements.lock
	@echo "== the benchmarks' peers into $(VENV)"
	@$(PIP) --quiet -r benchmarks/requirements.lock
	@touch $@

bench-peers: setup $(VENV)/.peers ## what benchmarks compare with: ZeroMQ, iceoryx2, Redis's client (the server: apt-get install redis-server)

bench: setup ## every benchmark, one table; COMPARE=REV sets them beside an earlier revision's
	@$(MAKE) --no-print-directory bench-peers || echo "== the peers can't be installed: the fan-out says which it leaves out"
	@$(BIN)/python -m benchmarks $(if $(COMPARE),--compare $(COMPARE)) $(ARGS)

fuzz: setup ## fuzz what reads segments, rings and window messages; MINUTES=10 for longer, ARGS=--self-check
	@$(BIN)/python -m fuzz --minutes $(MINUTES) $(ARGS)

lint: setup ## format, lint, types, import contract, docs
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy $(SOURCES:%=%/chandlery) benchmarks docs fuzz images monitoring proofs tests examples/api-client
	@$(BIN)/lint-imports
	@$(BIN)/python docs/check.py

format: setup ## put the code in form
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

docs: setup ## check the docs: links, component table, changelog fragments
	@$(BIN)/python docs/check.py

dashboards: setup ## write Grafana's dashboards and the alert rules in the chart anew
	@$(BIN)/python -m monitoring

crds: setup ## write the CustomResourceDefinitions in charts/chandlery/crds anew from the resources' types
	@$(BIN)/python -m chandlery.core.crds charts/chandlery/crds

manifests: setup ## the chart as plain manifests, build/manifests/chandlery.yaml; ARGS='--set …' as for helm
	@mkdir -p build/manifests
	@helm=$$(command -v helm || echo "$$($(BIN)/python -m tests.e2e.cluster build)/helm"); \
	  { printf 'apiVersion: v1\nkind: Namespace\nmetadata:\n  name: chandlery\n---\n'; \
	    "$$helm" template chandlery charts/chandlery --namespace chandlery --include-crds --skip-tests $(ARGS); \
	  } > build/manifests/chandlery.yaml
	@echo build/manifests/chandlery.yaml

lock: setup ## resolve requirements.lock anew from pyproject.toml, each image's part of it, and the benchmarks' peers
	@$(BIN)/python -m pip install --quiet uv
	@$(RESOLVE) --all-extras pyproject.toml -o requirements.lock
	@$(RESOLVE) --constraint requirements.lock benchmarks/requirements.in -o benchmarks/requirements.lock
	@$(BIN)/python -m images --extras | while read -r role extras; do \
	  $(RESOLVE) $$extras --constraint requirements.lock pyproject.toml -o images/requirements/$$role.lock || exit 1; \
	done

clean: ## remove what was built and the local state
	rm -rf $(VENV) .chandlery build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
