# Two commands matter: `make demo` and `make test`. Everything installs itself into .venv first.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo check test bench ui clean
.DEFAULT_GOAL := demo

demo: .venv/installed ## raw web pages to a chat model, about 8 minutes on 2 cores
	$(BIN)/tokenmill run demo

check: .venv/installed ## lint and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

test: check ## lint, types and every test that needs only pip packages
	$(BIN)/pytest -n 2 --dist loadfile

bench: .venv/installed ## seconds and memory of every stage of the demo
	$(BIN)/python -m benchmarks.demo

ui: .venv/installed ## Prefect server, worker and deployments
	$(BIN)/tokenmill ui

.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed, $(PYTHON) is older or missing: apt-get install python3, or make PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
		{ echo "Python's venv is missing: apt-get install python3-venv"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

clean: ## remove the environment and everything that runs made
	rm -rf .venv out .tokenmill
