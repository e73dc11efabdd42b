# `make demo`, `make test`: each makes the environment it needs, in .venv of this checkout, and nothing global.
#
#   PYTHON=python3.12           the interpreter to make it with (3.11 to 3.13)
#   TORCH_INDEX=URL             an index to take torch and torchvision from first, such as PyTorch's CPU-only one
#   RECIPE=, DATA_ROOT=, ARGS=  for `make demo`: the data recipe, where its raw data lies, further options

PYTHON ?= python3
TORCH_INDEX ?=
RECIPE ?= shapes
DATA_ROOT ?=
ARGS ?=

BIN := .venv/bin
INSTALLED := .venv/.installed

.DEFAULT_GOAL := help
.PHONY: help install demo lab bench test test-fast test-slow test-browser screenshots lint clean

help:
	@echo "make demo       five mixers and a control, trained and compared on drawn shapes"
	@echo "                (RECIPE=tiny-imagenet-40 DATA_ROOT=folder: on photographs)"
	@echo "make lab        JupyterLab with the notebooks"
	@echo "make test       style, unit, golden and notebook tests; test-fast: under two minutes; test-slow: the slow ones,"
	@echo "                and those that \`make test\` leaves out: twenty kills of one training, seconds of an idle core"
	@echo "make test-browser   the explorers in a real JupyterLab, by Chromium; screenshots: and keep how they look"
	@echo "make bench      the networks' speed beside timm's, with its bounds (ARGS=--repeats 2: sooner)"
	@echo "make install    the environment alone"

install: $(INSTALLED)

$(INSTALLED): pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(v < (3, 11) and "Python 3.11 or newer is needed, $(PYTHON) is %d.%d: make PYTHON=python3.12" % v)'
	$(PYTHON) -m venv .venv
	$(if $(TORCH_INDEX),$(BIN)/python -m pip install --quiet torch torchvision --index-url $(TORCH_INDEX))
	$(BIN)/python -m pip install --quiet --editable '.[lab,track,cluster,browser,test]'
	@touch $@

demo: $(INSTALLED)
	$(BIN)/stm-lab demo --recipe $(RECIPE) $(if $(DATA_ROOT),--data-root $(DATA_ROOT)) $(ARGS)

lab: $(INSTALLED)
	$(BIN)/jupyter lab notebooks

bench: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/stm-lab bench models $(ARGS)

lint: $(INSTALLED)
	$(BIN)/ruff check
	$(BIN)/lint-imports --no-cache --no-logo

# One test process a core; each computes on one thread, so that two cores are two tests. Bytecode is kept even where the
# environment says otherwise: tests start many processes, and each would compile the library anew.
PYTEST := PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/python -m pytest --quiet --numprocesses auto --dist worksteal

test: lint
	$(PYTEST) -m "not soak and not browser" tests

# and each test with one of its parameters alone
test-fast: $(INSTALLED)
	$(PYTEST) --once -m "not slow and not soak and not browser" tests

test-slow: $(INSTALLED)
	$(PYTEST) -m "(slow or soak) and not browser" tests

# Chromium comes from the system's packages where we may install them; else what is missing is said
test-browser: $(INSTALLED)
	@command -v chromium chromium-browser >/dev/null || test -n "$$STM_LAB_CHROMIUM" \
		|| { test "$$(id -u)" = 0 && command -v apt-get >/dev/null && apt-get update -qq && apt-get install -y -qq chromium >/dev/null; } \
		|| { echo "no Chromium: apt-get install chromium, or set STM_LAB_CHROMIUM to a browser"; exit 1; }
	$(PYTEST) -m browser tests/browser

screenshots:
	STM_LAB_SCREENSHOTS=notebooks/images/explorers $(MAKE) test-browser

clean:
	rm -rf .venv .pytest_cache .ruff_cache build dist *.egg-info
