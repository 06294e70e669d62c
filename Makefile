# setup demo test check docs bench bench-peers: everything works from a fresh machine that has Python 3.11+, pip and make.
PYTHON ?= python3
BIN := .venv/bin
UV := .uv/bin/uv
STAMP := .venv/.ready

.PHONY: setup demo test check docs bench bench-peers clean

setup: $(STAMP)

$(UV):
	$(PYTHON) -m venv .uv
	.uv/bin/pip install --quiet --disable-pip-version-check uv

$(STAMP): pyproject.toml constraints.txt | $(UV)
	test -x $(BIN)/python || $(UV) venv --quiet --python $(PYTHON) .venv
	$(UV) pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[all]' --group dev
	touch $(STAMP)

demo: setup
	$(BIN)/sonde demo

test: setup
	$(BIN)/python -m pytest -n 2 --dist worksteal

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/lint-imports

docs: setup
	$(UV) pip install --quiet --python $(BIN)/python --constraint constraints.txt --group docs
	$(BIN)/sphinx-build --fail-on-warning --keep-going --quiet -b html docs docs/_build/html
	@echo docs/_build/html/index.html

bench: setup
	$(BIN)/python benchmarks/quality.py

bench-peers: setup
	UV=$(UV) $(BIN)/python benchmarks/peers/run.py

clean:
	rm -rf .venv .uv .bench docs/_build docs/reference
