# make demo | test | test-system | lint | bench | image | clean
# The first call sets everything up inside the project; later calls start at once and work offline.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
PYTHON ?= python3
LOCK := containers/requirements.lock
ON_PATH := $(shell command -v nextflow 2>/dev/null)
ENGINE := $(if $(ON_PATH),,.engine/bin/nextflow)
# The engine never calls home, and keeps its own files inside the project.
RUN := PATH="$(CURDIR)/.venv/bin:$(if $(ON_PATH),,$(CURDIR)/.engine/bin:)$$PATH" \
       NXF_OFFLINE=true NXF_HOME="$(CURDIR)/.engine/home" PYTHONNOUSERSITE=1 \
       NUMBA_CACHE_DIR="$(CURDIR)/.venv/numba"
NEXTFLOW_SOURCES := main.nf workflows subworkflows modules conf nextflow.config tests/study.nf

.PHONY: help demo test test-system lint lint-python lint-nextflow bench image clean setup

help:
	@echo "make demo   simulate a study, run the whole pipeline on it, print the report's path"
	@echo "make test   run every test"
	@echo "make test-system   run the pipeline on SLURM and in the container, and break it on purpose"
	@echo "make lint   check style and strict Nextflow syntax"
	@echo "make bench  measure speed (ratios) and calibration"
	@echo "make image  build the container image"
	@echo "make clean  remove what the other targets made, the set-up included"

setup: .venv/complete $(ENGINE)
# Two engines that start at once would both make it, and one would fail.
	@mkdir -p .engine/home

.venv/complete: $(LOCK)
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	  { echo "Python 3.11 or newer is missing: install it (Debian: apt install python3 python3-venv) or name one: make PYTHON=/path/to/python3" >&2; exit 2; }
	@"$(PYTHON)" -c 'import venv, ensurepip' 2>/dev/null || \
	  { echo "Python's venv module is missing: install it (Debian: apt install python3-venv)" >&2; exit 2; }
	@echo "Installing Python packages into .venv (once)"
	@rm -rf .venv
	@"$(PYTHON)" -m venv .venv
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check --requirement $(LOCK)
	@echo "$(CURDIR)/bin" > "$$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/rvga.pth"
	@printf '#!%s\nfrom rvga.command import main\nfrom rvga import cli\ncli.run(main)\n' "$(CURDIR)/.venv/bin/python" > .venv/bin/rvga
	@chmod +x .venv/bin/rvga
	@touch $@

define need_java
	@command -v java >/dev/null || { echo "Java 17 or newer is missing: install it (Debian: apt install openjdk-17-jre-headless; macOS: brew install openjdk)" >&2; exit 2; }
	@command -v mvn >/dev/null || { echo "Neither nextflow nor Maven is on PATH: install Maven (Debian: apt install maven; macOS: brew install maven) or Nextflow" >&2; exit 2; }
endef

.engine/bin/nextflow: engine/pom.xml engine/nextflow
	$(need_java)
	@echo "Fetching Nextflow into .engine (once)"
	@rm -rf .engine/lib
	@mvn --quiet --batch-mode --file engine/pom.xml dependency:copy-dependencies -DoutputDirectory="$(CURDIR)/.engine/lib"
	@mkdir -p .engine/bin
	@cp engine/nextflow $@

.engine/lint/bin/nextflow: engine/lint/pom.xml engine/nextflow
	$(need_java)
	@echo "Fetching the strict Nextflow linter into .engine/lint (once)"
	@rm -rf .engine/lint/lib
	@mvn --quiet --batch-mode --file engine/lint/pom.xml dependency:copy-dependencies -DoutputDirectory="$(CURDIR)/.engine/lint/lib"
	@mkdir -p .engine/lint/bin
	@cp engine/nextflow $@

demo: setup
	@$(RUN) nextflow run main.nf -profile demo -resume -work-dir demo/work --outdir demo/results

lint: lint-python lint-nextflow

lint-python: .venv/complete
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .

lint-nextflow: .engine/lint/bin/nextflow
	NXF_OFFLINE=true NXF_HOME="$(CURDIR)/.engine/lint/home" .engine/lint/bin/nextflow lint $(NEXTFLOW_SOURCES)

test: setup lint
	$(RUN) .venv/bin/python -m pytest --numprocesses 2 --dist loadgroup --ignore tests/system tests
	@if command -v nf-test >/dev/null; then $(RUN) nf-test test; \
	 else echo "nf-test is not on PATH: the *.nf.test files were not run; pytest drove the same pipeline"; fi

test-system: setup
	$(RUN) .venv/bin/python -m pytest -rs --durations 10 --numprocesses 2 --dist loadgroup tests/system

bench: setup
	for script in benchmarks/*.py; do echo "== $$script"; $(RUN) .venv/bin/python "$$script"; done

image:
	@builder=$$(command -v docker || command -v podman || command -v buildah) || \
	  { echo "docker, podman or buildah is missing: install one of them" >&2; exit 2; }; \
	"$$builder" build --file containers/Dockerfile --tag rvga:$$(sed -n 's/^VERSION = "\(.*\)"/\1/p' bin/rvga/version.py) .

clean:
	rm -rf .venv .engine .image demo work results .nextflow .nextflow.log* .nf-test*
