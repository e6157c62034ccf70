# All that a newcomer, a developer and CI type. `make help` lists it.
.DEFAULT_GOAL := help
.PHONY: help demo test lint bench clean packages

# A Python 3.11 or newer that can make virtual environments, by its real path. The system's first:
# every user can execute it, and tests run commands as an ordinary user.
PYTHON ?= $(shell for name in /usr/bin/python3 python3.13 python3.12 python3.11 python3; do \
	$$name -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11) or print(sys.executable))' \
	2>/dev/null && break; done)

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST)

demo: .venv/installed ## build, run, push and pull an example image; leaves nothing behind
	@fixtures/install_packages.sh busybox-static docker-registry nftables
	@.venv/bin/python -m fixtures.demo

test: packages lint ## all that CI runs: lint, then every test
	.venv/bin/pytest

lint: .venv/installed ## format, rules and types
	.venv/bin/ruff format --check
	.venv/bin/ruff check
	.venv/bin/mypy

bench: packages .venv/installed ## measure side by side with docker, podman, buildah, skopeo and runc
	.venv/bin/python -m benchmarks

clean: ## remove what the other targets made in this directory
	rm -rf .venv .cache build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

packages:
	@fixtures/install_packages.sh

.venv/installed: pyproject.toml
	@test -n "$(PYTHON)" || { echo "no Python 3.11 or newer with venv: install python3 and python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	.venv/bin/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@
