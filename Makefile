# Two commands: `make demo` shows what the package does, `make test` proves it. See README.md.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := speechadapt kernels eval recipes tests

.PHONY: demo test oldest gate lint wheel clean
.DELETE_ON_ERROR:

# Rebuilt when what it installs from changes.
$(VENV)/installed: setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check -q -c constraints.txt torch
	$(BIN)/python -m pip install --disable-pip-version-check -q -c constraints.txt -e '.[dev]'
	touch $@

# QUICK=1: a few steps and a few recordings, everything else as it is.
demo: $(VENV)/installed
	$(BIN)/speechadapt-recipes demo --out demo $(if $(QUICK),--quick)

test: lint
	$(BIN)/python -m pytest -n 2

# Site tables and numerics with the oldest transformers that setup.cfg allows; all the rest is as in
# the environment, which a .pth file adds.
SITE := 'import sysconfig; print(sysconfig.get_path("purelib"))'
oldest: $(VENV)/installed
	$(PYTHON) -m venv --clear $(VENV)/oldest
	$(BIN)/python -c $(SITE) >$$($(VENV)/oldest/bin/python -c $(SITE))/rest.pth
	$(VENV)/oldest/bin/python -m pip install --disable-pip-version-check -q \
		"transformers==$$(sed -n 's/^ *transformers>=\([0-9]*\.[0-9]*\)$$/\1/p' setup.cfg).*"
	$(VENV)/oldest/bin/python -m pytest tests/speechadapt/test_whisper.py \
		tests/speechadapt/test_backbones.py tests/speechadapt/test_prefix.py

# Every kernel compiled for GPUs that need not be here, by this Triton and, as it is launched most, by
# that of torch 2.11.
gate: $(VENV)/installed
	timeout 240 $(BIN)/python kernels/bench/gate.py
	$(BIN)/python -m pip install --disable-pip-version-check -q --no-deps --upgrade \
		--target $(VENV)/triton triton==3.6.0
	PYTHONPATH=$(VENV)/triton timeout 240 $(BIN)/python kernels/bench/gate.py --plain

lint: $(VENV)/installed
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy

# An unlisted sub-package works from the checkout and is missing from the wheel.
wheel: $(VENV)/installed
	rm -rf build dist
	$(BIN)/python -m pip wheel --disable-pip-version-check -q --no-deps -w dist .
	$(PYTHON) -m venv --clear $(VENV)/wheel
	$(VENV)/wheel/bin/python -m pip install --disable-pip-version-check -q -c constraints.txt dist/*.whl
	cd $(VENV) && wheel/bin/python ../tests/import_everything.py

clean:
	rm -rf $(VENV) demo build dist *.egg-info
