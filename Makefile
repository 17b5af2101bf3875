# make demo    install, train a small network on the text every Python carries, and let it write
# make test    install what the tests need and run them
# make check   ruff, mypy, the import rule, and whether public names say what they are
# make page    bundle the page of `throughtime play`, with node
# make bench   speed, side by side with torch.nn, and with JAX and onnxruntime where they are installed
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# by its exact version, so that nothing else chooses a newer build
TORCH ?= torch==2.13.0
# what is imported is compiled then, once: of all that is installed that is a small part
INSTALL := $(BIN)/pip install -q --no-compile $(TORCH)
export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo test check page bench install install-dev clean

$(VENV)/.base: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) -e '.[plot]'
	@touch $@

$(VENV)/.dev: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) -e '.[plot,text,dev]'
	@touch $(VENV)/.base $@

install: $(VENV)/.base
install-dev: $(VENV)/.dev

demo: $(VENV)/.base
	$(BIN)/throughtime demo

# one thread a worker: two workers of two threads each would wait for one another. A worker that was ended by a test is not
# started again: pytest-xdist would then wait for ever
test: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --max-worker-restart=0

check: $(VENV)/.dev
	$(BIN)/ruff check src tests benchmarks examples
	$(BIN)/ruff format --check src tests benchmarks examples
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_imports.py tests/test_docstrings.py

page/node_modules: page/package-lock.json
	cd page && npm ci
	@touch $@

page: page/node_modules
	cd page && node build.mjs

bench: $(VENV)/.base
	$(BIN)/throughtime bench --save benchmarks/results

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache
