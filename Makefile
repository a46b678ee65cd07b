# `make` alone lists the targets.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# Where torch for processors alone is found; empty: where pip looks anyway.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
DEMO := demo

.DEFAULT_GOAL := help
.PHONY: help install demo test test-slow lint pytest slurm-test golden format docs benchmark clean lock image-check

help: ## List the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

install: $(INSTALLED) ## Create .venv and install bidsfit in it, editable, with the tools of development

$(INSTALLED): setup.cfg constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "bidsfit needs Python 3.11 or newer; say which: make PYTHON=python3.11 ..." >&2; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[tests,docs,dev]'
	@touch $@

demo: $(INSTALLED) ## Simulate an IVIM and an SMT dataset, fit both with several estimators, and print where the reports are (minutes)
	rm -rf $(DEMO)
	$(BIN)/bidsfit-lab phantom $(DEMO)/ivim --model ivim
	$(BIN)/bidsfit-lab phantom $(DEMO)/smt2 --model smt2
	$(BIN)/bidsfit $(DEMO)/ivim $(DEMO)/ivim/derivatives/bidsfit participant \
	  -d truth=$(DEMO)/ivim/derivatives/truth -w $(DEMO)/work/ivim --model ivim --estimators lsq segmented bayes
	$(BIN)/bidsfit $(DEMO)/smt2 $(DEMO)/smt2/derivatives/bidsfit participant \
	  -d truth=$(DEMO)/smt2/derivatives/truth -w $(DEMO)/work/smt2 --model smt2 --estimators lsq net-uniform \
	  --training-recipe network-quick
	@echo; echo "Reports:"; ls -1 $(DEMO)/*/derivatives/bidsfit/sub-*.html

test: lint docs pytest ## Lint, type check, spell check, build the docs, and run the tests (not the slow ones)

lint: $(INSTALLED) ## Format, lint, types, who imports whom, and spelling; changes nothing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/codespell

pytest: $(INSTALLED) ## Run the tests that take seconds, on all cores
	$(BIN)/pytest -n auto --dist loadfile --no-loadscope-reorder

test-slow: $(INSTALLED) ## Run the tests that take minutes
	$(BIN)/pytest -m slow

slurm-test: $(INSTALLED) ## Run a study on a real SLURM of one node, started for it (by root; Debian: slurm-wlm, munge)
	$(BIN)/pytest -m slow tests/end_to_end/test_slurm.py

golden: $(INSTALLED) ## Pin the outputs of the golden runs anew, where a change of them is meant
	$(BIN)/pytest tests/end_to_end/test_golden.py --golden

format: $(INSTALLED) ## Format the sources, apply the fixes that are safe, and renew what the docs take from the code
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .
	$(BIN)/python docs/_ext/generate.py

docs: $(INSTALLED) ## Build the documentation in docs/_build/html
	$(BIN)/sphinx-build -W --keep-going --quiet -b html docs docs/_build/html

lock: $(INSTALLED) ## Renew requirements.lock, what the container holds, from constraints.txt (Python 3.11, Linux, x86-64)
	CUSTOM_COMPILE_COMMAND='make lock' $(BIN)/pip-compile --quiet --generate-hashes --allow-unsafe --strip-extras \
	  --no-annotate --no-emit-options $(addprefix --extra-index-url=,$(TORCH_INDEX)) --constraint constraints.txt \
	  --extra distortion --build-deps-for wheel --output-file requirements.lock setup.cfg

image-check: ## Build the container image without Docker and run a phantom in it (as root, on Debian)
	tools/image-check

benchmark: $(INSTALLED) ## Speed and accuracy against other tools (see benchmarks/README.md)
	for script in benchmarks/[a-z]*.py; do $(BIN)/python $$script || exit; done

clean: ## Remove what the targets make, the environment too
	rm -rf $(VENV) $(DEMO) build dist docs/_build *.egg-info
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
