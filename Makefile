# `make demo` trains and shows the model, `make test` checks it, `make help` lists the rest.

PYTHON ?= python3
VENV ?= .venv
OLDEST_VENV ?= .venv-oldest
NEWEST_VENV ?= .venv-newest
WORKERS ?= 2
# Options for pytest, e.g. PYTEST_ARGS="-k tokenizer".
PYTEST_ARGS ?=
# Where torch comes from; empty: wherever pip is set up to look. On Linux, PyPI's torch brings several GB of CUDA
# libraries; a machine without a GPU is better served by TORCH_INDEX=https://download.pytorch.org/whl/cpu
TORCH_INDEX ?=

PY := $(VENV)/bin/python
PIP_INSTALL := -m pip install --quiet --quiet --disable-pip-version-check
# The oldest supported transformers, and the releases it needs older than those in constraints.txt.
OLDEST_PINS := transformers==5.17.0 huggingface_hub==1.33.0 httpx==0.28.1 httpcore==1.0.9
# What the tests need: the runtimes that checkpoints are exported to, too. A browser is not among it (extra `browser`).
TEST_EXTRAS := test,dev,ctranslate2,onnx
# Nothing is fetched after the install.
OFFLINE := HF_HUB_OFFLINE=1 HF_EVALUATE_OFFLINE=1 HF_HUB_DISABLE_TELEMETRY=1

.PHONY: demo test test-slow test-oldest test-newest lint font bench gpu-bundle gpu-check clean help
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

# $(call make_venv,FOLDER): a virtual environment, unless FOLDER already holds one with a working pip.
define make_venv
@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, $(PYTHON) is " + sys.version.split()[0] + "; try make PYTHON=python3.11" if sys.version_info < (3, 11) else 0)'
@$(1)/bin/python -m pip --version >/dev/null 2>&1 || { echo "making $(1)"; $(PYTHON) -m venv --clear $(1); }
endef

# $(call install,FOLDER,CONSTRAINTS,PACKAGE,OPTIONS): torch first and by its exact version, because a looser request lets
# pip choose, and download, another build of it on the way to an answer.
define install
@echo "installing $(3) into $(1) (minutes the first time)"
@$(1)/bin/python $(PIP_INSTALL) $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) "$$(grep '^torch==' $(2))"
@$(1)/bin/python $(PIP_INSTALL) $(4) --constraint $(2) --editable "$(3)"
endef

# $(call run_tests,FOLDER,MARKERS): one thread a worker, so that the workers do not fight over the cores. A run in
# which every test was skipped is a failure, not a success.
define run_tests
@rm -f $(1)/tests.xml
$(OFFLINE) OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false \
	$(1)/bin/python -m pytest -n $(WORKERS) -m "$(2)" --junitxml=$(1)/tests.xml $(PYTEST_ARGS)
@$(1)/bin/python -c 'import sys, xml.etree.ElementTree as tree; \
	suites = list(tree.parse("$(1)/tests.xml").iter("testsuite")); \
	executed = sum(int(suite.get("tests")) - int(suite.get("skipped")) for suite in suites); \
	sys.exit(None if executed else "no test was executed: all were skipped")'
endef

$(VENV)/.installed: pyproject.toml constraints.txt
	$(call make_venv,$(VENV))
	$(call install,$(VENV),constraints.txt,.)
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(call install,$(VENV),constraints.txt,.[$(TEST_EXTRAS)])
	@touch $@

$(OLDEST_VENV)/.installed-test: pyproject.toml constraints.txt Makefile
	$(call make_venv,$(OLDEST_VENV))
	@grep -vE '^($(subst $(space),|,$(foreach pin,$(OLDEST_PINS),$(firstword $(subst ==, ,$(pin))))))==' constraints.txt \
		> $(OLDEST_VENV)/constraints.txt
	@printf '%s\n' $(OLDEST_PINS) >> $(OLDEST_VENV)/constraints.txt
	$(call install,$(OLDEST_VENV),$(OLDEST_VENV)/constraints.txt,.[$(TEST_EXTRAS)])
	@touch $@

# Everything but torch in its newest release inside pyproject's ranges; made anew whenever it is asked for, since that
# changes from day to day.
$(NEWEST_VENV)/.installed-test: FORCE
	$(call make_venv,$(NEWEST_VENV))
	@grep '^torch==' constraints.txt > $(NEWEST_VENV)/constraints.txt
	$(call install,$(NEWEST_VENV),$(NEWEST_VENV)/constraints.txt,.[$(TEST_EXTRAS)],--upgrade --upgrade-strategy eager)
	@touch $@
FORCE:

# A space, which cannot be written as such inside the calls above.
empty :=
space := $(empty) $(empty)

demo: $(VENV)/.installed ## train on the embedded English-Korean corpus and show the translations
	@$(OFFLINE) $(VENV)/bin/vanilla-transformer demo --card model_card.md

test: $(VENV)/.installed-test ## run the fast tests (minutes)
	$(call run_tests,$(VENV),not slow)

test-slow: $(VENV)/.installed-test ## run the tests that need long
	$(call run_tests,$(VENV),slow)

test-oldest: $(OLDEST_VENV)/.installed-test ## run the fast tests against the oldest supported transformers
	$(call run_tests,$(OLDEST_VENV),not slow)

test-newest: $(NEWEST_VENV)/.installed-test ## run the fast tests against the newest release of every dependency
	@$(NEWEST_VENV)/bin/python -m pip list --format=freeze | grep -E '^(torch|transformers|accelerate|tokenizers)=='
	$(call run_tests,$(NEWEST_VENV),not slow)

lint: $(VENV)/.installed-test ## check style, format and types
	$(PY) -m ruff check
	$(PY) -m ruff format --check
	$(PY) -m mypy

# The font of Debian's package fonts-nanum, of which figures carry a subset.
FONT ?= /usr/share/fonts/truetype/nanum/NanumGothic.ttf

font: $(VENV)/.installed ## make the font for Hangul in figures from FONT=NanumGothic.ttf
	$(PY) -m hf_vanilla_transformer.visualization.font_subset "$(FONT)"

bench: $(VENV)/.installed-test ## run the benchmarks
	$(OFFLINE) $(PY) benchmarks/run.py

# Folder that holds multi30k/, and packages that the machine with the GPU lacks beside those named in the script.
DATA ?= data
WITH ?=

gpu-bundle: ## gather in .gpu/ what a machine with a GPU and no network lacks (DATA=folder, WITH=packages)
	@$(PYTHON) benchmarks/gpu/bundle.py --data "$(DATA)" --with "$(WITH)"

# On a machine where nothing can be installed: the environment if there is one, else the Python that has torch.
GPU_PYTHON ?= $(if $(wildcard $(VENV)/.installed-test),$(PY),$(PYTHON))
PART ?= tests,speed,quality
OUTPUT ?= runs/gpu-check
# Further options, e.g. GPU_ARGS="--speed first --limit speed=60"; the script's --help lists them.
GPU_ARGS ?=

gpu-check: ## on a GPU: tests, speed and quality (PART=tests, OUTPUT=folder, QUICK=1: the rehearsal on the CPU)
	@$(GPU_PYTHON) benchmarks/gpu/check.py --part "$(PART)" --output "$(OUTPUT)" $(if $(QUICK),--quick) $(GPU_ARGS)

clean: ## remove what builds and tools left; environments (.venv*) and runs/ stay
	rm -rf build dist *.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find hf_vanilla_transformer examples tests -name __pycache__ -type d -prune -exec rm -rf {} +

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | while IFS="$$(printf '\t')" read -r name text; do \
		printf '  make %-12s %s\n' "$$name" "$$text"; done
