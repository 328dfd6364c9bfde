# Everything a fresh Debian 12 machine needs is installed by `make demo` and `make test` themselves.

# Debian's own, where there is one: others than root can start that too.
PYTHON ?= $(firstword $(wildcard /usr/bin/python3) python3)
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
PACKAGES := build/.packages
FOR_BENCH := $(VENV)/.bench

# How many modules of tests `make test` runs at a time, but for what must be alone; in their order, as
# the last ones take no time.
WORKERS := 2
SIDE_BY_SIDE = --numprocesses '$(WORKERS)' --dist loadfile --no-loadscope-reorder

SECONDS := 3600
BENCH := default
ONLY :=
SUBJECTS :=
IN :=

export PREFIX SYSCONFDIR SBINDIR DESTDIR

.PHONY: help install uninstall demo test soak bench check format lint types fidelity clean

help:
	@echo "make install    program, man pages, completions, units below PREFIX=/usr/local (DESTDIR=)"
	@echo "make uninstall  take that away again"
	@echo "make demo       show the main job on real input: before, after, under a real wasmtime"
	@echo "make test       run every test (root and /dev/fuse needed; WORKERS=2 at a time)"
	@echo "make soak       mixed load for SECONDS=3600, and whether anything grew (root needed)"
	@echo "make bench      overlayd beside bindfs and others; docs/performance.md (BENCH=quick|full, ONLY=)"
	@echo "make check      format, lint and type checks, then the tests"
	@echo "make fidelity   run the behaviours and write docs/fidelity.md from them"
	@echo "make clean      remove what the others made"

# What can be set on make's command line is explained in tools/install.
install uninstall:
	PYTHON='$(PYTHON)' tools/install $@

demo: $(INSTALLED)
	$(BIN)/python demo/run.py

# Whatever comes of the first part, the second is run; but not after ^C.
test: $(INSTALLED)
	@status=0; \
	$(BIN)/python -m pytest $(SIDE_BY_SIDE) -m 'not alone' || status=$$?; \
	test $$status -le 1 || exit $$status; \
	$(BIN)/python -m pytest -m alone || status=$$?; \
	exit $$status

soak: $(INSTALLED)
	$(BIN)/python benchmarks/soak.py --seconds $(SECONDS)

# Only a whole run goes into the documentation.
PAGE = $(if $(ONLY)$(SUBJECTS)$(filter-out default full,$(BENCH)),,--docs docs/performance.md)

bench: $(FOR_BENCH)
	$(BIN)/python -m benchmarks.run --size '$(BENCH)' --only '$(ONLY)' \
		--subjects '$(SUBJECTS)' $(if $(IN),--in '$(IN)' --no-disk) $(PAGE)

check: format lint types test

fidelity: $(INSTALLED)
	$(BIN)/python tools/fidelity-table

format: $(INSTALLED)
	$(BIN)/ruff format --check .

lint: $(INSTALLED)
	$(BIN)/ruff check .

types: $(INSTALLED)
	$(BIN)/mypy

$(PACKAGES): tools/install-packages
	PYTHON=$(PYTHON) tools/install-packages
	@mkdir -p build && touch $@

$(INSTALLED): $(PACKAGES) pyproject.toml setup.py $(wildcard src/overlayd/*/*.c)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[test,check]'
	@touch $@

$(FOR_BENCH): $(INSTALLED)
	PYTHON=$(PYTHON) tools/install-packages bench
	$(BIN)/python -m pip install --quiet --editable '.[test,check,bench]'
	@touch $@

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	rm -f src/overlayd/*/*.so
