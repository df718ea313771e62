# make figures [PROFILE=demo|laptop|paper] [NOTEBOOKS="01 02"] [SEED=0] [FRESH=1]   run the notebooks into build/PROFILE
# TORCH=cpu or TORCH=cuda, with any of these, at the first call: the build of PyTorch to install (docs/install.md)
# make test | lint | bench | drill | publish | site | clean               docs/running.md says what each is for
PYTHON = python3
PROFILE = demo
NOTEBOOKS =
SEED = 0
FRESH ?=
TORCH ?=

# Refused here too, so that a slip does not first cost an installation.
ifneq ($(PROFILE),$(filter $(PROFILE),demo laptop paper))
$(error unknown PROFILE "$(PROFILE)"; valid: demo, laptop, paper)
endif

ifneq ($(filter-out 0 1 no yes,$(FRESH))$(word 2,$(FRESH)),)
$(error FRESH must be 1 or yes, 0 or no, not "$(FRESH)")
endif
ifneq ($(filter-out cpu cuda,$(TORCH))$(word 2,$(TORCH)),)
$(error unknown TORCH "$(TORCH)"; valid: cpu, cuda)
endif

ifneq ($(shell echo '$(SEED)' | grep -cx '[0-9][0-9]*'),1)
$(error SEED must be a whole number from 0 up, not "$(SEED)")
endif
UNKNOWN = $(foreach name,$(NOTEBOOKS),$(if $(wildcard notebooks/$(name).ipynb notebooks/$(name)_*.ipynb),,$(name)))
ifneq ($(strip $(UNKNOWN)),)
$(error unknown notebook $(strip $(UNKNOWN)); valid: $(sort $(basename $(notdir $(wildcard notebooks/*.ipynb)))))
endif

# The build that a finished installation has; it stays until .venv is deleted. On macOS there is but one.
ifeq ($(shell uname -s),Linux)
FINISHED = $(and $(wildcard .venv/.installed),$(if $(wildcard .venv/.installing),,yes))
HAS = $(and $(FINISHED),$(if $(wildcard .venv/lib/python3*/site-packages/torch-*+cpu.dist-info),cpu,cuda))
endif
ifneq ($(and $(TORCH),$(filter-out $(TORCH),$(HAS))),)
$(error .venv has the $(HAS) build of PyTorch; for TORCH=$(TORCH) delete it first: rm -rf .venv)
endif

.PHONY: figures test lint bench drill publish site clean

figures: .venv/.installed
	@.venv/bin/python -m mialib run --profile "$(PROFILE)" --seed "$(SEED)" $(if $(filter 1 yes,$(FRESH)),--fresh) $(NOTEBOOKS)

test: .venv/.installed
	@.venv/bin/python -m pytest

lint: .venv/.installed
	@.venv/bin/ruff check
	@.venv/bin/ruff format --check

bench: .venv/.bench
	@.venv/bin/python -m benchmarks

drill: .venv/.installed
	@.venv/bin/python -m tests.drill

publish: .venv/.installed
	@.venv/bin/python -m mialib publish $(NOTEBOOKS)

site: .venv/.installed
	@.venv/bin/python -m mialib site

clean:
	rm -rf build .pytest_cache .ruff_cache .hypothesis

# .installing marks an installation under way: found again, it was interrupted, and the environment is made anew.
.venv/.installed: requirements.lock pyproject.toml install.py
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("mialib needs Python 3.11 or newer and found " \
		+ sys.version.split()[0] + "; name another with: make PYTHON=/path/to/python3.11")'
	@if [ -e .venv/.installing ]; then rm -rf .venv; fi
	@mkdir -p .venv && touch .venv/.installing
	@$(PYTHON) -m venv .venv
	@.venv/bin/python install.py $(or $(TORCH),$(HAS))
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	@mv .venv/.installing $@ && touch $@

.venv/.bench: requirements-bench.lock .venv/.installed
	@echo "Installing the libraries that the benchmark measures against ..."
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-bench.lock
	@touch $@
