# What one does with a clone of enclap; `make help` lists it. Plain sh, GNU make 3.81 or newer. All paths are relative,
# so a clone may stand in a folder whose name holds spaces.

.DEFAULT_GOAL := help
.NOTPARALLEL:
.DELETE_ON_ERROR:

PYTHON ?=
SHARED ?= ../shared
RECORDINGS ?= $(SHARED)/data/sounds
MINI_OUTPUT ?= build/mini
PYTHONS ?=
PYTEST_ARGUMENTS ?=
PYTHONS_ARGUMENTS ?=
FUZZ_ARGUMENTS ?=

VENV := .venv
RUN := $(VENV)/bin/python
PIP_INSTALL := $(RUN) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

# The files of tests run two at a time, each whole in one process, so that what a file makes is made once. More processes
# gain little: each builds a model of its own first.
TWO_AT_A_TIME := --numprocesses 2 --dist loadfile

# Stamp files record what is installed. Their names hold a number made from the clone's path, because a virtual
# environment stops working when its folder is moved. An environment that no longer runs is made anew.
CLONE := $(shell pwd | cksum | cut -d' ' -f1)
RUNTIME := $(VENV)/.runtime-$(CLONE)
TRAIN := $(VENV)/.train-$(CLONE)
DEV := $(VENV)/.dev-$(CLONE)
DOCS := $(VENV)/.docs-$(CLONE)
VENV_WORKS := $(shell $(RUN) -c 'import sys, pip; print("yes" if sys.version_info >= (3, 11) else "")' 2>/dev/null)
MAKE_VENV := $(if $(VENV_WORKS),,venv)

.PHONY: help demo test test-pythons test-shared test-full test-slow test-soak test-gpu fuzz mini install-mini corpus lint format docs report speed speed-official examples wheel clean venv recordings shared

help: ## show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' Makefile | awk -F'|' '{ printf "%-20s %s\n", $$1, $$2 }'
	@echo "Variables: PYTHON=python3.12 (which Python), RECORDINGS=FOLDER (for mini), SHARED=FOLDER (for test-shared, test-full),"
	@echo "           PYTHONS='3.12 3.13' or newest (for test-pythons)."

demo: $(RUNTIME) ## caption the example sounds (installs only the runtime into .venv, no PyTorch)
	@echo "Captioning the sounds in examples/:"
	@$(VENV)/bin/enclap caption examples
	@echo
	@echo "Now one of your own, any audio or video file:"
	@echo "    $(VENV)/bin/enclap caption path/to/your/sound.mp3"
	@echo "More: $(VENV)/bin/enclap --help, README.md, docs/"

test: $(DEV) ## lint, format, types and tests (adds PyTorch and the test tools); all run, whichever fails
	@status=0; types=$$(mktemp); \
	$(RUN) -m mypy >"$$types" 2>&1 & checker=$$!; trap 'kill $$checker; rm -f "$$types"; exit 130' INT TERM; \
	echo "ruff check:"; $(RUN) -m ruff check . || status=1; \
	echo "ruff format:"; $(RUN) -m ruff format --check . || status=1; \
	$(RUN) -m pytest $(TWO_AT_A_TIME) $(PYTEST_ARGUMENTS) || status=1; \
	echo "mypy, which ran meanwhile:"; wait $$checker || status=1; \
	cat "$$types"; rm -f "$$types"; \
	exit $$status

test-pythons: $(DEV) ## the demo and the runtime tests on every Python found, with the newest and the lowest packages
	$(RUN) scripts/check_pythons.py $(PYTHONS) $(PYTHONS_ARGUMENTS)

test-shared: shared $(DEV) ## the tests that read recordings and reference numbers in ../shared
	$(RUN) -m pytest -m shared $(PYTEST_ARGUMENTS)

test-full: shared $(DEV) ## base and large at full size against the published code's outputs (15 minutes, 10 GB of disk)
	$(RUN) -m pytest -m full $(PYTEST_ARGUMENTS)

test-slow: $(DEV) ## slower tests: servers and killed processes, mini's stages trained small (some minutes)
	$(RUN) -m pytest -m slow $(PYTEST_ARGUMENTS)

test-soak: $(DEV) ## tests that take many minutes: ten thousand files, a whole training or download that is killed
	$(RUN) -m pytest -m soak --timeout 1800 $(PYTEST_ARGUMENTS)

test-gpu: $(DEV) ## tests that need a CUDA device
	$(RUN) -m pytest -m gpu $(PYTEST_ARGUMENTS)

test-browser: $(DEV) ## the pages in Chromium, as people use them (needs chromium: apt-get install chromium)
	@command -v chromium >/dev/null || { echo "error: no chromium found; Debian: apt-get install chromium" >&2; exit 1; }
	$(RUN) -m pytest -m browser $(PYTEST_ARGUMENTS)

fuzz: $(DEV) ## read ten thousand damaged recordings (FUZZ_ARGUMENTS="--seed 7 --count 50000" for others)
	$(RUN) tests/fuzzing.py $(FUZZ_ARGUMENTS)

lint: $(DEV) ## ruff (lint and format) and mypy
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

docs: $(DOCS) ## build the documentation into build/site; a warning is an error
	$(RUN) -m zensical build --strict --clean

format: $(DEV) ## format the code and mend what ruff can mend
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

# glibc gives large blocks back to the kernel at once, and taking them again costs more here than the arithmetic.
mini: recordings $(TRAIN) ## train the bundled model again from the recordings (hours; may be stopped and started)
	MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=17179869184 \
	    $(RUN) -m enclap.training.mini.run --recordings "$(RECORDINGS)" --output "$(MINI_OUTPUT)"

install-mini: $(TRAIN) ## put the newly trained model into the package, in place of the bundled one
	$(RUN) -m enclap.training.mini.run --recordings "$(RECORDINGS)" --output "$(MINI_OUTPUT)" \
	    --install-into src/enclap/bundled/mini
	@echo "Measure it now, for its card: benchmarks/README.md lists the scripts, \`make report\` writes their figures."

corpus: $(RUNTIME) ## fetch the training recordings from their public sources into build/sounds (git, some GB)
	$(RUN) -m enclap.data.rebuild --output build/sounds

speed: $(RUNTIME) ## measure time and memory of mini, and write the figures where `make report` does
	$(RUN) benchmarks/speed.py
	$(RUN) benchmarks/throughput.py
	$(RUN) benchmarks/report.py

speed-official: shared $(DEV) ## measure base and large, and what int8 changes (an hour; weights go to build/official)
	mkdir -p build/official
	$(RUN) benchmarks/official_speed.py build/official
	$(RUN) benchmarks/precision.py build/official/base build/official/large
	$(RUN) benchmarks/accelerators.py build/official
	$(RUN) benchmarks/report.py

report: $(RUNTIME) ## write the stored figures into README.md, docs/benchmarks.md and mini's model card
	$(RUN) benchmarks/report.py

examples: $(RUNTIME) ## make the sounds in examples/ again
	$(RUN) examples/rebuild.py

wheel: $(RUNTIME) ## build dist/enclap-*.whl and .tar.gz
	@$(RUN) -c 'import hatchling' 2>/dev/null || $(PIP_INSTALL) 'hatchling>=1.27'
	$(RUN) -m hatchling build --clean -t sdist -t wheel

clean: ## remove .venv, dist, caches and what was built (a training in build/mini stays)
	rm -rf $(VENV) dist build/site build/pythons .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find src tests benchmarks examples scripts -name __pycache__ -type d -exec rm -rf {} +

$(RUNTIME): pyproject.toml constraints.txt $(MAKE_VENV)
	@echo "Installing enclap and its runtime into $(VENV) (some 100 MB of packages, no PyTorch) ..."
	@$(PIP_INSTALL) --editable . || { $(INSTALL_FAILED); }
	@touch $@

$(TRAIN): pyproject.toml constraints.txt $(MAKE_VENV)
	@echo "Installing what training needs into $(VENV) (PyTorch among it: this can take minutes) ..."
	@$(PIP_INSTALL) --editable '.[train]' || { $(INSTALL_FAILED); }
	@touch $@ $(RUNTIME)

$(DEV): pyproject.toml constraints.txt $(MAKE_VENV)
	@echo "Installing what the tests need into $(VENV) (PyTorch among it: this can take minutes) ..."
	@$(PIP_INSTALL) --editable '.[dev]' || { $(INSTALL_FAILED); }
	@touch $@ $(TRAIN) $(RUNTIME)

$(DOCS): pyproject.toml constraints.txt $(RUNTIME)
	@echo "Installing what the documentation needs into $(VENV) ..."
	@$(PIP_INSTALL) --editable '.[docs]' || { $(INSTALL_FAILED); }
	@touch $@

define INSTALL_FAILED
echo "error: pip could not install the packages; see its messages above." >&2; \
echo "Without a network, point pip at a folder of wheels (PIP_FIND_LINKS); behind a proxy, set HTTPS_PROXY." >&2; \
exit 1
endef

venv:
	@if [ -n "$(PYTHON)" ]; then set -- "$(PYTHON)"; \
	    else set -- python3 python3.11 python3.12 python3.13 python3.14 python; fi; \
	chosen=; seen=; \
	for candidate do \
	    version=$$("$$candidate" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || continue; \
	    seen="$$seen $$candidate ($$version)"; \
	    if "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	        chosen=$$candidate; break; \
	    fi; \
	done; \
	if [ -z "$$chosen" ]; then \
	    echo "error: enclap needs Python 3.11 or newer; found:$${seen:- none} (looked for: $$*)." >&2; \
	    echo "Install one (Debian, Ubuntu: apt install python3 python3-venv; macOS: brew install python)," >&2; \
	    echo "or name one that you have: make PYTHON=/path/to/python3.12 $(MAKECMDGOALS)" >&2; \
	    exit 1; \
	fi; \
	if ! "$$chosen" -c 'import ensurepip, venv' 2>/dev/null; then \
	    echo "error: $$chosen lacks the modules venv and ensurepip, which make $(VENV)." >&2; \
	    echo "Debian, Ubuntu: apt install python$$version-venv (others: install the full Python $$version)." >&2; \
	    exit 1; \
	fi; \
	echo "Making $(VENV) with $$chosen (Python $$version) ..."; \
	"$$chosen" -m venv --clear $(VENV)

recordings:
	@if [ ! -f "$(RECORDINGS)/manifest.csv" ]; then \
	    echo "error: no recordings at $(RECORDINGS) (it should hold manifest.csv and the sound files)." >&2; \
	    echo "Put the collection there, or name its folder: make mini RECORDINGS=/path/to/sounds" >&2; \
	    exit 1; \
	fi

shared:
	@if [ ! -d "$(SHARED)" ]; then \
	    echo "error: no folder $(SHARED): make test-shared and test-full read recordings and reference numbers from there." >&2; \
	    echo "Put it beside the clone; \`make test\` needs no such folder." >&2; \
	    exit 1; \
	fi
