# The study's whole vocabulary: `make help`.
#
# Nothing to install by hand: each word first sets up .venv, from pyproject.toml at the versions of requirements.lock. In an
# activated conda environment made from environment.yml (one that has this package), that environment is used instead.

PROFILE ?= quick
PYTHON ?= python3

# -I: ask the environment itself, not the checkout that we stand in
CONDA_PYTHON := $(if $(CONDA_PREFIX),$(shell test -x "$(CONDA_PREFIX)/bin/python" && "$(CONDA_PREFIX)/bin/python" -I -c "import importlib.util as u; print('$(CONDA_PREFIX)/bin/python' if u.find_spec('sln') else '')" 2>/dev/null))

ifneq ($(CONDA_PYTHON),)
PY := $(CONDA_PYTHON)
RUNTIME :=
APP :=
DEV :=
else
PY := .venv/bin/python
RUNTIME := .venv/.runtime
APP := .venv/.app
DEV := .venv/.dev
endif

.DEFAULT_GOAL := help
.PHONY: help setup data plan reproduce figures report lab app test test-all test-gpu test-ui browser lint format bench clean clean-runs

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-11s %s\n", $$1, $$2}'
	@echo "  PROFILE=smoke|quick|full|mini|cifar10|paper applies to data, plan, reproduce, figures and report (default quick)"

setup: $(DEV) ## set up .venv for everything below (each word does so by itself)

data: $(RUNTIME) ## get what PROFILE=mini, cifar10 or paper needs; goes on after a break
	$(PY) -m sln data get cifar10
	$(PY) -m sln data get sln-labels
	$(if $(filter mini,$(PROFILE)),$(PY) -m sln data get cifar-n)
	$(if $(filter cifar10 paper,$(PROFILE)),$(PY) -m sln data get cifar100)
	$(if $(filter paper,$(PROFILE)),$(PY) -m sln data get resnet50)

plan: $(RUNTIME) ## only say what reproduce would train, and about how long that takes here
	$(PY) -m sln reproduce --profile $(PROFILE) --dry-run

reproduce: $(RUNTIME) ## execute every notebook headlessly, fill figures/ and build/, check what they claim
	$(PY) -m sln reproduce --profile $(PROFILE)

figures: reproduce ## the same: figures come from the notebooks and from nowhere else

report: reproduce ## the same, and say where the article is
	@echo "open build/$(PROFILE)/index.html"

lab: $(RUNTIME) ## JupyterLab on the notebooks, on loopback, with a token
	$(PY) -m jupyterlab --ServerApp.ip=127.0.0.1 --notebook-dir=notebooks --LabApp.app_settings_dir="$(CURDIR)/sln/explore/lab" $(if $(filter 0,$(shell id -u)),--allow-root)

app: $(APP) ## the explorers as a page of their own (Voilà), on loopback, with a token
	JUPYTER_PATH="$(CURDIR)/sln/explore" $(PY) -m voila sln/explore/app.ipynb --Voila.config_file_paths=sln/explore/voila --token

test: $(DEV) ## run the fast tests, in two processes
	$(PY) -m pytest -n 2 --dist loadfile -m "not slow"

test-all: $(DEV) ## run all tests, measure coverage; in a browser too, where Chromium is or can be installed
	rm -rf build/ui/trained
	SLN_TEST_RUNS="$(CURDIR)/build/ui/trained/runs" $(PY) -m pytest -n 2 --dist loadfile --cov --cov-report=term
	@if $(MAKE) --no-print-directory browser; then $(MAKE) --no-print-directory test-ui; fi

test-gpu: $(DEV) ## run the tests that need a GPU, and fail where there is none
	@$(PY) -c "import torch; raise SystemExit(not torch.cuda.is_available() and 'torch sees no GPU here')"
	$(PY) -m pytest -m gpu

test-ui: browser $(DEV) ## run the tests in real browsers (Chromium; Firefox, if there), screenshots to build/ui/
	$(PY) -m pytest -n 2 --dist loadfile --no-loadscope-reorder tests/ui

browser: ## find Chromium, or install it where that can be done without asking
	@$(FIND_CHROMIUM) || $(GET_CHROMIUM) || { echo "test-ui needs the browser chromium: install your system's package of that name (Debian: apt-get install chromium) and try again"; exit 2; }

lint: $(DEV) ## check style, code, imports and notebooks; changes nothing
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(dir $(PY))lint-imports --no-cache --no-logo
	$(PY) -m nbstripout --verify $(STRIP) notebooks/*.ipynb sln/explore/app.ipynb

format: $(DEV) ## format code and notebooks, strip notebook outputs
	$(PY) -m nbstripout $(STRIP) notebooks/*.ipynb sln/explore/app.ipynb
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

bench: $(DEV) ## measure times and memory on this machine, and what each speed gains
	$(PY) benchmarks/speeds.py
	$(PY) benchmarks/bench.py

clean: ## remove build/ and caches; keeps .venv, data and trained runs
	rm -rf build .pytest_cache .ruff_cache .hypothesis .coverage .coverage.*
	find sln tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

clean-runs: ## remove every trained run (they are trained again when asked for)
	rm -rf runs

# papermill's traces are stripped too, which nbstripout leaves by default
STRIP := --extra-keys "metadata.papermill cell.metadata.papermill metadata.widgets metadata.language_info.version"

# with apt-get where that can be: as root, or where sudo asks for no password
FIND_CHROMIUM := command -v chromium >/dev/null
GET_CHROMIUM := { root=$$(test "$$(id -u)" = 0 || echo "sudo -n"); $$root apt-get update -qq && $$root apt-get install -qq -y chromium; } >/dev/null 2>&1

.venv/.created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed, $(PYTHON) is $$($(PYTHON) --version 2>&1); name another with: make PYTHON=python3.12 ..."; exit 2; }
	$(PYTHON) -m venv .venv
	@touch $@

.venv/.runtime: .venv/.created pyproject.toml requirements.lock
	.venv/bin/python -m pip install --quiet --disable-pip-version-check --constraint requirements.lock --editable .
	@touch $@

.venv/.app: .venv/.created pyproject.toml requirements.lock
	.venv/bin/python -m pip install --quiet --disable-pip-version-check --constraint requirements.lock --editable ".[app]"
	@touch $@ .venv/.runtime

.venv/.dev: .venv/.created pyproject.toml requirements.lock
	.venv/bin/python -m pip install --quiet --disable-pip-version-check --constraint requirements.lock --editable ".[dev]"
	@touch $@ .venv/.runtime
