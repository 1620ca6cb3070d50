# `make demo` trains a model and shows its translations, `make test` runs the tests, `make help` lists all targets.

PYTHON ?= python3
VENV ?= .venv
OLDEST_VENV ?= .venv-oldest
NEWEST_VENV ?= .venv-newest
DIST_VENV ?= .venv-dist
WORKERS ?= 2
# Further options for pytest, e.g. PYTEST_ARGS="-k tokenizer".
PYTEST_ARGS ?=
# Package index to install torch from; empty: pip's default. On Linux, torch from PyPI depends on several GB of CUDA
# libraries. On a machine without a GPU, use TORCH_INDEX=https://download.pytorch.org/whl/cpu
TORCH_INDEX ?=

PY := $(VENV)/bin/python
PIP_INSTALL := -m pip install --quiet --quiet --disable-pip-version-check
# The oldest supported transformers, and the releases that it needs to be older than in constraints.txt.
OLDEST_PINS := transformers==5.17.0 huggingface_hub==1.33.0 httpx==0.28.1 httpcore==1.0.9
# Extras that the tests need, including the runtimes of exported checkpoints. `make test-browser` adds `browser`.
TEST_EXTRAS := test,dev,ctranslate2,onnx
# The accessibility rules that the attention page is checked against: an npm package, used in tests only.
AXE_CORE := axe-core@4.14.1
# `build` is pinned in constraints.txt.
DIST_TOOLS := build twine==7.0.0
# Prevent downloads after the installation.
OFFLINE := HF_HUB_OFFLINE=1 HF_EVALUATE_OFFLINE=1 HF_HUB_DISABLE_TELEMETRY=1

.PHONY: demo test test-slow test-oldest test-newest test-browser lint dist font bench gpu-bundle gpu-check clean help
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

# $(call make_venv,FOLDER): create a virtual environment, unless FOLDER already has one with a working pip.
define make_venv
@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, $(PYTHON) is " + sys.version.split()[0] + "; try make PYTHON=python3.11" if sys.version_info < (3, 11) else 0)'
@$(1)/bin/python -m pip --version >/dev/null 2>&1 || { echo "making $(1)"; $(PYTHON) -m venv --clear $(1); }
endef

# $(call install,FOLDER,CONSTRAINTS,PACKAGE,OPTIONS): install torch first and by its exact version. With a looser request,
# pip may download other builds of torch while it resolves the versions.
define install
@echo "installing $(3) into $(1) (takes minutes the first time)"
@$(1)/bin/python $(PIP_INSTALL) $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) "$$(grep '^torch==' $(2))"
@$(1)/bin/python $(PIP_INSTALL) $(4) --constraint $(2) --editable "$(3)"
endef

# $(call run_tests,FOLDER,MARKERS,FILES): run the tests with one thread per worker, so that the workers do not compete for
# the cores. A run in which every test was skipped fails.
define run_tests
@rm -f $(1)/tests.xml
$(OFFLINE) OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false \
	$(1)/bin/python -m pytest -n $(WORKERS) -m "$(2)" --junitxml=$(1)/tests.xml $(3) $(PYTEST_ARGS)
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

# The newest releases within the ranges of pyproject.toml, except torch. Reinstalled on every call, because the newest
# releases change from day to day.
$(NEWEST_VENV)/.installed-test: FORCE
	$(call make_venv,$(NEWEST_VENV))
	@grep '^torch==' constraints.txt > $(NEWEST_VENV)/constraints.txt
	$(call install,$(NEWEST_VENV),$(NEWEST_VENV)/constraints.txt,.[$(TEST_EXTRAS)],--upgrade --upgrade-strategy eager)
	@touch $@
FORCE:

# A space, which cannot be written literally inside the calls above.
empty :=
space := $(empty) $(empty)

demo: $(VENV)/.installed ## train a model on the embedded English-Korean corpus and show its translations
	@$(OFFLINE) $(VENV)/bin/vanilla-transformer demo --card model_card.md

test: $(VENV)/.installed-test ## run the fast tests (takes minutes)
	$(call run_tests,$(VENV),not slow)

test-slow: $(VENV)/.installed-test ## run the slow tests (takes up to an hour)
	$(call run_tests,$(VENV),slow)

test-oldest: $(OLDEST_VENV)/.installed-test ## run the fast tests with the oldest supported transformers
	$(call run_tests,$(OLDEST_VENV),not slow)

test-newest: $(NEWEST_VENV)/.installed-test ## run the fast tests with the newest release of every dependency
	@$(NEWEST_VENV)/bin/python -m pip list --format=freeze | grep -E '^(torch|transformers|accelerate|tokenizers)=='
	$(call run_tests,$(NEWEST_VENV),not slow)

$(VENV)/.installed-browser: $(VENV)/.installed-test
	$(call install,$(VENV),constraints.txt,.[browser])
	@npm install --silent --no-save --no-package-lock --no-audit --no-fund --prefix .cache/npm $(AXE_CORE)
	@touch $@

test-browser: $(VENV)/.installed-browser ## run the tests of the attention page; needs Chromium and npm
	$(call run_tests,$(VENV),slow,tests/visualization/test_browser.py)

lint: $(VENV)/.installed-test ## check style, formatting and types
	$(PY) -m ruff check
	$(PY) -m ruff format --check
	$(PY) -m mypy

# $(call try_distribution,FOLDER,FILE): install a wheel or an sdist into a new environment and use it from an empty
# directory. The environment is deleted afterwards.
define try_distribution
@echo "installing $$(ls $(2)) into a new environment (takes minutes)"
@rm -rf $(1) && $(PYTHON) -m venv $(1)
@$(1)/bin/python $(PIP_INSTALL) $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) "$$(grep '^torch==' constraints.txt)"
@$(1)/bin/python $(PIP_INSTALL) --constraint constraints.txt $(2)
@mkdir $(1)/empty
@cd $(1)/empty && ../bin/python -I "$(CURDIR)/.ci/try_distribution.py" "$(CURDIR)/hf_vanilla_transformer"
@rm -rf $(1)
endef

$(DIST_VENV)/.installed: constraints.txt Makefile
	$(call make_venv,$(DIST_VENV))
	@$(DIST_VENV)/bin/python $(PIP_INSTALL) --constraint constraints.txt $(DIST_TOOLS)
	@touch $@

# The wheel is built from the sdist, each in an isolated environment. Old metadata must not add files to the sdist.
dist: $(DIST_VENV)/.installed ## build the wheel and the sdist in dist/, check both, try both in new environments
	@rm -rf build dist *.egg-info
	@$(DIST_VENV)/bin/python -m build --outdir dist . > $(DIST_VENV)/build.log 2>&1 || { cat $(DIST_VENV)/build.log; exit 1; }
	@$(DIST_VENV)/bin/python -m twine check --strict dist/*
	$(call try_distribution,$(DIST_VENV)-wheel,dist/*.whl)
	$(call try_distribution,$(DIST_VENV)-sdist,dist/*.tar.gz)
	@ls -l dist

# The font of Debian's package fonts-nanum; the package includes a subset of it for figures.
FONT ?= /usr/share/fonts/truetype/nanum/NanumGothic.ttf

font: $(VENV)/.installed ## generate the Hangul font subset for figures (FONT=path of NanumGothic.ttf)
	$(PY) -m hf_vanilla_transformer.visualization.font_subset "$(FONT)"

bench: $(VENV)/.installed-test ## run the benchmarks
	$(OFFLINE) $(PY) benchmarks/run.py

# Directory that contains multi30k/, and further packages to include beside those listed in the script.
DATA ?= data
WITH ?=

gpu-bundle: ## collect data and packages in .gpu/ for a GPU machine without network (DATA=directory, WITH=packages)
	@$(PYTHON) benchmarks/gpu/bundle.py --data "$(DATA)" --with "$(WITH)"

# On a machine where nothing can be installed: the virtual environment if there is one, else the Python that has torch.
GPU_PYTHON ?= $(if $(wildcard $(VENV)/.installed-test),$(PY),$(PYTHON))
PART ?= tests,speed,quality
OUTPUT ?= runs/gpu-check
# Further options, e.g. GPU_ARGS="--speed first --limit speed=60"; see the script's --help.
GPU_ARGS ?=

gpu-check: ## run tests, speed and quality checks on a GPU (PART=tests, OUTPUT=directory, QUICK=1: tiny sizes on the CPU)
	@$(GPU_PYTHON) benchmarks/gpu/check.py --part "$(PART)" --output "$(OUTPUT)" $(if $(QUICK),--quick) $(GPU_ARGS)

clean: ## delete build outputs and caches; keep environments (.venv*) and runs/
	rm -rf build dist *.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find hf_vanilla_transformer benchmarks examples tests -name __pycache__ -type d -prune -exec rm -rf {} +

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' Makefile
