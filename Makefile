# One door. `make` alone says what there is.

VENV := .venv
PY := $(VENV)/bin/python
# A Python of your choice: make up PYTHON=/path/to/python3
PYTHON ?=

# `up` needs the run-time packages only; an environment that has the development ones serves it too.
READY := $(if $(wildcard $(VENV)/dev.stamp),$(VENV)/dev.stamp,$(VENV)/up.stamp)
PIP := $(PY) -m pip install --disable-pip-version-check --quiet --require-hashes

PACKAGES := admin catalog extauth gate publisher ratelimit runtime tollkeeper
LOCKS := requirements.lock requirements-image.lock requirements-dev.lock

.DEFAULT_GOAL := help
.PHONY: help up test check clients e2e e2e-gateway e2e-kube helm-golden image-check compiled-check wheel bench bench-smoke bench-meter soak fuzz fuzz-smoke soak-memory audit proto golden settings

help:  ## this list
	@sed -n 's/^\([a-z0-9-]*\):.*##  *\(.*\)/make \1 \2/p' $(MAKEFILE_LIST) | awk '{printf "%s %-11s", $$1, $$2; $$1 = $$2 = ""; print $$0}'

up: $(READY)  ## start the whole gateway on this machine; options as TOLLKEEPER_... variables
	@exec $(VENV)/bin/tollkeeper up

test: check clients  ## everything: check, then all tests; four files at a time, since tests wait half of the time
	@$(PY) -m pytest -n 4 --dist loadfile --no-loadscope-reorder --max-worker-restart=0

check: $(VENV)/dev.stamp  ## style, types, import direction, freshness of generated files
	@$(PY) -m ruff check
	@$(PY) -m ruff format --check
	@$(PY) -m mypy
	@$(VENV)/bin/lint-imports
	@$(VENV)/bin/bandit -q -r $(PACKAGES)
	@$(PY) -m pytest -q tests/contracts

clients: $(VENV)/dev.stamp  ## install people's own packages (tests/clients), with which tests call the gateway; once
	@PYTHON=$(PY) tests/clients/build.sh

e2e: clients  ## the tests on the whole machine: real Envoy, real Valkey
	@$(PY) -m pytest tests/e2e

e2e-gateway: $(VENV)/dev.stamp  ## the tests on the real Envoy Gateway, which is built once (Go; six minutes)
	@tests/gateway/build.sh
	@tests/gateway/alone.sh $(PY) -m pytest -m gateway tests/gateway

e2e-kube: $(VENV)/dev.stamp  ## the tests on a real Kubernetes API server, which is built once (Go, about 12 minutes)
	@tests/kube/build.sh >/dev/null || [ -z "$$CI" ]
	@tests/gateway/build.sh
	@tests/gateway/alone.sh $(PY) -m pytest -q -m kube tests

helm-golden: $(VENV)/dev.stamp  ## write down anew what the chart renders (needs what e2e-kube builds)
	@$(PY) tests/helm/golden.py

image-check: $(VENV)/dev.stamp  ## the image without an engine, and the wheel installed by pip and pipx
	@$(VENV)/bin/hadolint Dockerfile
	@$(PY) -m pytest -q -m image tests/image

compiled-check: $(VENV)/dev.stamp  ## the hot modules compiled by mypyc (kept by a hash of sources): their tests, and that they answer as their sources
	@$(PY) -m pytest -q -m compiled tests/compiled

wheel: $(VENV)/dev.stamp  ## the package as dist/*.whl; COMPILED=1: with the hot modules compiled, for this platform and Python
	@TOLLKEEPER_COMPILED=$(COMPILED) $(PY) -m pip wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation --wheel-dir dist .

bench: $(VENV)/dev.stamp  ## every bar of docs/performance.md beside its peer (built once, with Go); saved in benchmarks/results
	@$(PY) -m benchmarks.everything

bench-smoke: $(VENV)/dev.stamp  ## whether a call has become dearer beside envoyproxy/ratelimit (built once, with Go); under three minutes
	@$(PY) -m benchmarks.smoke

bench-meter: $(VENV)/dev.stamp  ## what metering costs in Envoy, gate and store, beside the commit before it was rebuilt
	@$(PY) -m benchmarks.metering_cpu --before b2cfdb7
	@$(PY) -m benchmarks.answer_meter

soak: $(VENV)/dev.stamp  ## 200 power cuts of a store at work: what was answered must be there
	@$(PY) -m tests.durability.soak --rounds 200

fuzz: $(VENV)/dev.stamp  ## a million odd inputs to everything that reads what others wrote, and ten times the examples of slow properties
	@$(PY) -m tests.fuzz.run --inputs 1000000
	@TOLLKEEPER_TEST_EXAMPLES=100 $(PY) -m pytest -q tests/admin/http/test_schemathesis.py
	@TOLLKEEPER_TEST_EXAMPLES_TIMES=10 $(PY) -m pytest -q $$(grep -rl 'support.examples import' tests --include='test_*.py')

fuzz-smoke: $(VENV)/dev.stamp  ## a minute of `make fuzz`
	@$(PY) -m tests.fuzz.run --inputs 1000000 --seconds 60

soak-memory: $(VENV)/dev.stamp  ## ten minutes of full load with keys that change: memory must stay flat
	@$(PY) -m tests.memory.soak --minutes 10

audit: $(VENV)/dev.stamp  ## ask PyPI whether a locked package has a known fault; fails where it cannot be asked
	@for lock in $(LOCKS); do \
	    $(VENV)/bin/pip-audit --strict --progress-spinner off --require-hashes --disable-pip -r $$lock || { \
	        echo "$$lock: a package has a known fault, or could not be asked about: read above which" >&2; exit 1; }; \
	done

proto: $(VENV)/dev.stamp  ## make the protobuf code again
	@protos/generate.sh $(PY)

golden: $(VENV)/dev.stamp  ## make the golden files of Envoy Gateway's resources again
	@$(PY) -m tests.publisher.gateway.golden

settings: $(VENV)/dev.stamp  ## make docs/settings.md again
	@$(PY) -m tollkeeper.settings_page docs/settings.md

$(VENV)/up.stamp: requirements.lock $(PY)
	@echo "installing the locked packages"
	@$(PIP) -r requirements.lock
	@$(link_command)
	@touch $@

$(VENV)/dev.stamp: requirements-dev.lock $(PY)
	@echo "installing the locked development packages"
	@$(PIP) -r requirements-dev.lock
	@$(link_command)
	@touch $@

# The source tree is the package: a .pth file and a two-line command.
define link_command
$(PY) -c 'import pathlib, sysconfig; pathlib.Path(sysconfig.get_path("purelib"), "tollkeeper.pth").write_text("$(CURDIR)\n")' \
	&& printf '#!/bin/sh\nexec "$$(dirname "$$0")/python" -P -m tollkeeper "$$@"\n' > $(VENV)/bin/tollkeeper \
	&& chmod +x $(VENV)/bin/tollkeeper
endef

$(PY):
	@for python in $(or $(PYTHON),python3 python3.14 python3.13 python3.12 python3.11); do \
	    if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	        "$$python" -m venv $(VENV) && exit 0; \
	        rm -rf $(VENV); \
	        echo "$$python cannot make a virtual environment: install its venv package (Debian: python3-venv)" >&2; exit 1; \
	    fi; \
	done; \
	echo "Tollkeeper needs Python 3.11 or newer, and none was found; name one: make up PYTHON=/path/to/python3" >&2; exit 1
