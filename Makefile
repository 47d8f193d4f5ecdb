# Every target only calls `python3 -m course`, which works the same where there is no make.
PYTHON ?= python3
ARGS ?=

.PHONY: help course test test-all stubs notebooks lint model book mutants reliability

help:
	@echo "make course     install into .venv, fetch the model, watch the engine answer eight prompts"
	@echo "make test       check style, types and stubs, run the tests      ARGS='-k page_table' goes to pytest"
	@echo "make test-all   the slow tests too"
	@echo "make lint       style, types and stubs only"
	@echo "make stubs      make flexnano/ from solutions/flexnano/"
	@echo "make notebooks  their made cells from solutions/, then run all and store the outputs"
	@echo "make book       build the book into _build/html                   ARGS=--pdf prints it too"
	@echo "make mutants    change the reference bit by bit: do the graders see it?    PYTHON=.venv/bin/python"
	@echo "make reliability  try to break engine and course; one table of what was tried   ARGS='--minutes 20'"
	@echo "PYTHON=python3.12 names another Python"

course:
	@$(PYTHON) -m course setup

test:
	@$(PYTHON) -m course test $(ARGS)

test-all:
	@$(PYTHON) -m course test --all $(ARGS)

stubs:
	@$(PYTHON) -m course stubs $(ARGS)

notebooks:
	@$(PYTHON) -m course notebooks --run $(ARGS)

lint:
	@$(PYTHON) -m course lint

model:
	@$(PYTHON) -m course setup --no-demo

book:
	@$(PYTHON) -m course book $(ARGS)

mutants:
	@$(PYTHON) tests/course/mutants/run.py $(ARGS)

reliability:
	@$(PYTHON) -m course reliability $(ARGS)
