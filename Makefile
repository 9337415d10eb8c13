# Two commands matter: `make demo` and `make test`. Everything installs itself into .venv first.
PYTHON ?= python3
BIN := .venv/bin
APT := apt-get install --yes --no-install-recommends

.PHONY: demo check test system bench ui clean
.DEFAULT_GOAL := demo

demo: .venv/installed ## raw web pages to a chat model, about 8 minutes on 2 cores
	$(BIN)/tokenmill run demo

check: .venv/installed ## lint and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

test: check ## lint, types and every test that needs only pip packages
	$(BIN)/pytest -n 2 --dist loadfile --ignore tests/system

system: .venv/system ## what a person sees in a browser, PostgreSQL; installs both from Debian; screenshots in out/screens
	$(BIN)/pytest tests/system

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

.venv/system: .venv/installed
	@command -v chromium >/dev/null || $(APT) chromium
	@ls -d /usr/lib/postgresql/*/bin >/dev/null 2>&1 || $(APT) postgresql
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,system]'
	@touch $@

clean: ## remove the environment and everything that runs made
	rm -rf .venv out .tokenmill
