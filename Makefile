# Two commands matter: `make run` and `make test`. Everything they need is set up on first use.
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin

.PHONY: run demo test test-mysql check bench package clean format

run: .venv/.local .venv-ministack/.stamp
	$(BIN)/python -m infra.walkthrough --serve

demo: .venv/.local .venv-ministack/.stamp
	$(BIN)/python -m infra.walkthrough $(if $(PACKAGE),--package $(PACKAGE))

# More processes than two cores: most of what the end-to-end tests do is waiting. They come first: their files take
# minutes, and one that was left for the end would keep the cores idle.
test: .venv/.dev .venv-ministack/.stamp
	tools/database-server
	$(BIN)/python -m pytest -n 4 --dist loadfile --no-loadscope-reorder tests/e2e tests/integration tests/unit

test-mysql: TESTS ?= tests
test-mysql: .venv/.dev .venv-ministack/.stamp
	url=$$(set -o pipefail; tools/mysql-server start | tail -n 1) || exit; \
	  HOTPLUG_TEST_MYSQL_URL=$$url $(BIN)/python -m pytest -n 2 --dist loadfile $(TESTS); \
	  status=$$?; tools/mysql-server stop; exit $$status

check: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/unit/test_import_rules.py

bench: .venv/.dev .venv-ministack/.stamp
	tools/database-server
	$(BIN)/python -m bench

package: STAGE ?= dev
package: .venv/.dev
	$(BIN)/python -m infra.aws package --stage $(STAGE)

format: .venv/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .local build .venv .venv-ministack .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/.local: requirements.txt requirements-local.txt
	PYTHON=$(PYTHON) tools/venv .venv requirements-local.txt
	@touch $@

.venv/.dev: requirements.txt requirements-local.txt requirements-dev.txt | .venv/.local
	PYTHON=$(PYTHON) tools/venv .venv requirements-dev.txt
	@touch $@

.venv-ministack/.stamp: requirements-ministack.txt
	PYTHON=$(PYTHON) tools/venv .venv-ministack requirements-ministack.txt
	@touch $@
