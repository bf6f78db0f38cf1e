# Two commands matter: `make serve` and `make test`. Both set up .venv first; once set up, that is instant.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
FIND_PYTHON = command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) was not found: make serve PYTHON=python3.12" >&2; exit 1; }

.DEFAULT_GOAL := help
.PHONY: help serve test lint typecheck bench doctor settings-docs clean distclean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 22

serve: $(VENV)/.ready ## Serve on port 8000 (ARGS="--port 9000 --model ...")
	@$(BIN)/enginehouse serve $(ARGS)

test: lint typecheck ## Lint, type check, and run the tests (ARGS="-k name")
	$(BIN)/pytest $(ARGS)

lint: $(VENV)/.ready-dev ## Check style and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

typecheck: $(VENV)/.ready-dev ## Check types, strictly
	$(BIN)/mypy
	$(BIN)/mypy scripts
	$(BIN)/mypy benchmarks

bench: $(VENV)/.ready ## Measure this server, and a peer beside it (ARGS="--peer /path/to/llama-server")
	@$(BIN)/python -m benchmarks.run $(ARGS)

doctor: $(VENV)/.ready ## Say what this machine can run, and why
	@$(BIN)/enginehouse doctor $(ARGS)

settings-docs: $(VENV)/.ready ## Write .env.example and the README's table from the settings
	$(BIN)/python -m scripts.settings_docs

clean: ## Remove caches and build output
	rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find app balancer engines scripts tests -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean ## Remove the virtual environment too
	rm -rf $(VENV)

# The stamps are as new as the last set-up, so that a changed dependency, and only that, repeats it.
$(VENV)/.ready: pyproject.toml scripts/setup_env.py
	@$(FIND_PYTHON)
	@$(PYTHON) scripts/setup_env.py --venv $(VENV) --extras llama
	@touch $@

$(VENV)/.ready-dev: pyproject.toml scripts/setup_env.py
	@$(FIND_PYTHON)
	@$(PYTHON) scripts/setup_env.py --venv $(VENV) --extras llama,dev
	@touch $@ $(VENV)/.ready
