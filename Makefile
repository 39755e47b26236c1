# The few words of this project. `make` alone lists them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

venv := .venv/.complete
py := .venv/bin/python

## for people

.PHONY: help
help: ## list these words
	@awk -F ':.*## ' '/^## /{printf "\n%s\n", substr($$0, 4)} /^[a-z]+:.*## /{printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: check
check: $(venv) ## format, ruff, mypy, imports, shellcheck, shfmt, docs current (< 60 s)
	@scripts/check

.PHONY: quick
quick: $(venv) ## every test that needs no box (< 90 s)
	@$(py) -m pytest -m "not system" $(ARGS)

## for the tree

.PHONY: venv
venv: $(venv) ## make .venv with the pinned, hashed development libraries

$(venv): requirements-dev.txt scripts/venv
	@scripts/venv

.PHONY: format
format: $(venv) ## rewrite Python and bash the way `make check` wants them
	@scripts/check --write

.PHONY: lock
lock: $(venv) ## make both requirement files anew from pyproject.toml
	@scripts/lock
