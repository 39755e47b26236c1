# The few words of this project. `make` alone lists them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

venv := .venv/.complete
py := .venv/bin/python

## To see it, to trust it

.PHONY: demo
demo: $(venv) ## a virtual GPU server, and two users on it (KEEP=1 leaves it up)
	@KEEP=$(KEEP) scripts/demo

.PHONY: test
test: $(venv) ## everything, in a virtual GPU server; installs what is missing (root)
	@scripts/test $(ARGS)

## To work on it

.PHONY: quick
quick: $(venv) ## every test that needs no virtual server and is over soon (< 90 s)
	@make --silent -C native && make --silent -C tests/testbed/nvml
	@$(py) -m pytest -m "not system and not long" $(ARGS)

.PHONY: check
check: $(venv) ## format, ruff, mypy, imports, shellcheck, shfmt, docs (< 60 s)
	@scripts/check

.PHONY: sim
sim: $(venv) ## random histories of a small world (SEED=… STEPS=…)
	@$(py) -m tests.sim $(if $(SEED),--seed $(SEED)) $(if $(STEPS),--steps $(STEPS))

.PHONY: explore
explore: $(venv) ## every history of tiny worlds, one after the other (WORLD='…')
	@$(py) -m tests.sim.explorer $(if $(WORLD),'$(WORLD)')

.PHONY: golden
golden: $(venv) ## write the golden files anew; read the diff before you commit it
	@$(py) -m pytest -q -m "not system and not long" --rewrite $(ARGS) && git --no-pager diff --stat

.PHONY: soak
soak: $(venv) ## a long storm with all faults, and its report (HOURS=… KILLS=… SEED=… REPORT=…, root)
	@scripts/soak $(if $(HOURS),--hours $(HOURS)) $(if $(KILLS),--kills $(KILLS)) $(if $(SEED),--seed $(SEED)) \
	  $(if $(REPORT),--report $(REPORT)) $(ARGS)

.PHONY: bench
bench: $(venv) ## the table of speeds, in a virtual server (REPORT=…, root)
	@scripts/bench $(if $(REPORT),--report $(REPORT)) $(ARGS)

.PHONY: run
run: $(venv) ## this checkout's daemon in a virtual server, restarted on change (root)
	@scripts/run

.PHONY: help
help: ## list these words
	@awk -F ':.*## ' '/^## /{printf "\n%s\n", substr($$0, 4)} /^[a-z]+:.*## /{printf "  make %-8s %s\n", $$1, $$2}' Makefile

## Upkeep

.PHONY: format
format: $(venv) ## rewrite Python and bash into the form that check wants
	@scripts/check --write

.PHONY: lock
lock: ## make both requirement files anew from pyproject.toml
	@scripts/lock

.PHONY: venv
venv: $(venv) ## make .venv with the pinned libraries; every word does it when it has to

$(venv): requirements-dev.txt scripts/venv
	@scripts/venv
