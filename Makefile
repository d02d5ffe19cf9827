# Needs python3 (3.10 or later, with venv) and make; every target sets up what it uses.
PYTHON ?= python3
VENV ?= .venv
WORKERS ?= 2

BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP := $(BIN)/python -m pip --disable-pip-version-check
PIP_INSTALL := $(PIP) install --constraint constraints.txt
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist worksteal

# Their metadata ask for packages that the modules under test never import, torchvision among them.
NETS := efficientnet_pytorch monai pytorchcv

.PHONY: venv test nightly gpu-test lint types demo zoo grids

venv: $(STAMP)

# The build tools come first, from constraints.txt too, and then build without isolation: an isolated build
# would fetch the newest ones instead.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP_INSTALL) hatchling setuptools
	$(PIP_INSTALL) --no-build-isolation --editable '.[dev,figures,sweep,test,zoo]'
	$(PIP_INSTALL) --no-build-isolation --use-pep517 --no-deps $(NETS)
	touch $@

test: venv
	HYPOTHESIS_PROFILE=ci $(PYTEST) -m 'not slow'

nightly: venv
	HYPOTHESIS_PROFILE=nightly $(PYTEST)

gpu-test: venv
	$(BIN)/python -m pytest -m gpu

lint: venv
	$(BIN)/ruff check

types: venv
	PYRIGHT_PYTHON_IGNORE_WARNINGS=1 $(BIN)/pyright --pythonpath $(BIN)/python

demo: venv
	$(BIN)/padrewrite demo

# Every network of the collection; keeps results in .zoo-cache, writes docs/coverage.md and docs/zoo-findings.md.
# ARGS for options: make zoo ARGS='--only resnet*'
zoo: venv
	OMP_NUM_THREADS=1 PYTHONPATH=tests $(BIN)/python -m zoo.sweep --jobs $(WORKERS) $(ARGS)
	$(if $(ARGS),,$(MAKE) grids)

# Output stride on feature extractors at several sizes; writes docs/output-stride.md.
grids: venv
	OMP_NUM_THREADS=1 PYTHONPATH=tests $(BIN)/python -m zoo.grids --jobs $(WORKERS)
