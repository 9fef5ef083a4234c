# `make help` prints this list.
SHELL := /bin/bash
# The first interpreter that the locks are for; where there is none, uv fetches one.
PYTHON ?= $(shell for python in python3.11 python3.12 python3.13 python3; do \
  $$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && echo $$python && break; done)
VENV := .venv
BIN := $(VENV)/bin
OUT ?= runs/quickstart
SCALE ?= small
SEED ?= 0
CLUSTER ?= build/cluster

.DEFAULT_GOAL := help
.PHONY: help setup triton run test test-slow cluster cluster-test check lint unit secrets images bench rehearsal pictures monitoring lock version clean

help: ## this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' Makefile

setup: $(VENV)/.ready ## .venv with the locked versions (all it needs is Python 3.11, 3.12 or 3.13)

# Compiled once here: a pipeline is some twenty processes, and each would compile torch and MLflow anew where Python may not
# write bytecode. uv reads UV_FIND_LINKS only; whoever keeps wheels on disk for pip (PIP_FIND_LINKS) gets them here too.
$(VENV)/.ready: locks/dev.txt pyproject.toml
	@command -v $(or $(PYTHON),uv) >/dev/null || { echo "make setup: $(if $(PYTHON),$(PYTHON) is not here,neither Python 3.11 to 3.13 nor a uv that fetches one is here); install Python 3.11, 3.12 or 3.13, or say PYTHON=..."; exit 2; }
	@echo "make setup: installing locks/dev.txt into $(VENV): minutes, and gigabytes where torch comes with CUDA"
	test -x $(BIN)/python || $(if $(PYTHON),$(PYTHON) -m venv,uv venv --quiet --seed --python 3.12) $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$$(sed -n 's/^uv==//p' locks/dev.txt)
	UV_FIND_LINKS="$${UV_FIND_LINKS:-$$PIP_FIND_LINKS}" $(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python -r locks/dev.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .
	@touch $@

triton: setup ## .venv-triton: the Triton server and its Python backend (about 300 MB), from locks/triton.txt
	$(BIN)/python -m serving.triton.install

# A world that is there already stays: a run that was interrupted goes on only with the very files that it began with.
WORLD := $(OUT)-logs/world.json
run: setup ## the main job on the small simulated world: logs -> report.html and a registered release
	@grep -qs '"scale": "$(SCALE)"' $(WORLD) && grep -qs '"seed": $(SEED)\b' $(WORLD) && \
	  test -z "$$(find crops/world -name '*.py' -newer $(WORLD))" || \
	  (set -x; $(BIN)/crops world --out $(OUT)-logs --scale $(SCALE) --seed $(SEED))
	$(BIN)/crops run --logs $(OUT)-logs --out $(OUT) --llm world --config configs/quickstart.yaml \
	  --registry sqlite:///$(abspath $(OUT))/registry/mlflow.db

# Two workers; what shares the images, a Triton, Spark or a file goes to one of them (tests/conftest.py).
# Threads of two workers that spin while they wait for one another take five times as long.
# A long traceback shows arguments, and a Spark table shows itself by asking its JVM, which may be what hangs.
PYTEST = OMP_WAIT_POLICY=PASSIVE $(BIN)/pytest -q -m "not slow" -n 2 --dist loadscope --no-loadscope-reorder --tb=short --durations=25

test: setup triton ## everything from a fresh clone to a tested tree (CI calls this)
	bash tests/install_system_parts
	$(MAKE) --no-print-directory lint
	$(PYTEST) tests

test-slow: setup ## kill loops, several seeds, the real LLM in the whole chain
	$(BIN)/pytest -q -m slow --durations=20

cluster: setup ## the programs of a Kubernetes of our own into build/cluster (needs Go; half an hour, later a minute)
	$(BIN)/python -m tests.cluster.local build $(CLUSTER)

cluster-test: setup ## the chart on a real Kubernetes: the one of KUBECONFIG (in namespaces crops-test-*), else of `make cluster`
	CROPS_CLUSTER=$(abspath $(or $(KUBECONFIG),$(CLUSTER))) $(BIN)/pytest -q -m cluster --durations=10 tests/cluster

check: setup ## format, lint, types, import contracts, unit tests
	$(MAKE) --no-print-directory -j 2 lint unit

unit: setup
	$(PYTEST) tests/crops

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(MAKE) --no-print-directory secrets

# Lines that name a Secret, digests, and a notebook's pictures hold none.
secrets: setup ## no password, key or token in any file of the tree
	git ls-files -z -- ':!locks' ':!*.svg' ':!*go.sum' | xargs -0 $(BIN)/detect-secrets-hook \
	  --exclude-lines '(secretName|secretAsEnv|imagePullSecret|SECRET_VARIABLE|"secrets"|"image/png"|sha256|model_name\()' \
	  --exclude-secrets '^(registry|search-bucket|search-tls|AWS_SECRET_ACCESS_KEY|MLFLOW_TRACKING_PASSWORD)$$'

images: setup ## the images, their sizes, a bill of materials of each, and their smoke tests (needs Docker; as root it starts its own)
	bash tests/install_system_parts
	$(BIN)/pytest -q -s -m docker tests/images

# The two left out at the end want samples of a finished run.
bench: setup ## side-by-side measurements, printed as ratios
	for f in $(filter-out benchmarks/report.py benchmarks/synthetic_log.py benchmarks/minilm.py benchmarks/gate_seeds.py benchmarks/focus.py benchmarks/bubble.py,$(wildcard benchmarks/*.py)); do echo "== $$f"; $(BIN)/python $$f || exit 1; done

rehearsal: setup triton ## canary, A/B, verdict, three bad releases, and a training on the result, after `make run` (at most 30 minutes)
	bash tests/install_system_parts
	$(BIN)/python tests/end_to_end/rehearsal.py --run $(OUT)

pictures: setup triton ## the pictures of README, of the run in OUT (after `make run`), and the drawing of the pipeline
	bash tests/install_system_parts
	$(BIN)/python docs/drawing.py
	$(BIN)/python docs/pictures.py $(OUT)

monitoring: setup ## rules and dashboards from monitoring/slo, alerts and dashboards.py, here and in the chart
	$(BIN)/python -m monitoring.generate

# One lock for whoever works on the project, and one for each image, at the same versions and with hashes. The local build of torch
# has hashes of its own, so its are left out of the lock of training.
COMPILE = UV_FIND_LINKS="$${UV_FIND_LINKS:-$$PIP_FIND_LINKS}" $(BIN)/uv pip compile --quiet --python $(BIN)/python --no-annotate --no-header \
  --no-emit-index-url --no-emit-find-links
CUDA = --quiet --no-annotate --no-header --no-emit-index-url --no-emit-find-links
MINE_EXTRAS := mine,registry,experiment,pipeline,kubeflow,cluster,store
lock: ## write locks/*.txt anew from pyproject.toml (exact versions, no addresses)
	$(COMPILE) --all-extras --upgrade-package torch pyproject.toml -o locks/dev.txt
	sed -i 's/+cpu$$//' locks/dev.txt
	set -e; for role in mine:$(MINE_EXTRAS) mine-spark:$(MINE_EXTRAS),spark train:$(MINE_EXTRAS),train,lora gateway:serve,cluster,store; do \
	  $(COMPILE) --generate-hashes --upgrade-package torch -c locks/dev.txt $$(tr ',' '\n' <<< "$${role#*:}" | sed 's/^/--extra /') pyproject.toml -o locks/$${role%%:*}.txt; done
	$(COMPILE) --generate-hashes -c locks/dev.txt --group follow -o locks/follow.txt
	UV_FIND_LINKS= $(BIN)/uv pip compile $(CUDA) --generate-hashes --python $(BIN)/python -c <(grep -v -e ^faiss -e ^triton locks/dev.txt) \
	  --override <(echo "faiss-cpu; python_version < '3'") $$(tr ',' '\n' <<< "$(MINE_EXTRAS),train,lora" | sed 's/^/--extra /') \
	  --group gpu pyproject.toml -o locks/train-cuda.txt
	UV_FIND_LINKS= $(BIN)/uv pip compile $(CUDA) --generate-hashes --python-version 3.12 --group triton-cuda -o locks/triton-cuda.txt
	$(BIN)/python -c "import re; p = 'locks/train.txt'; t = open(p).read(); \
	  open(p, 'w').write(re.sub(r'^(torch==[^+ ]+)\S*( \\\\\n    --hash=\S+)+', r'\1', t, flags=re.M))"

# pyproject.toml is where the version is read from; tests/ci/test_release.py holds the other places to it.
version: setup ## write the project's version V=X.Y.Z everywhere it stands (then tag vX.Y.Z)
	@grep -qE '^[0-9]+\.[0-9]+\.[0-9]+$$' <<< '$(V)' || { echo 'make version: say V=X.Y.Z'; exit 2; }
	sed -i -E 's/^(version = ")[^"]*/\1$(V)/' pyproject.toml
	sed -i -E 's/^(VERSION = ")[^"]*/\1$(V)/' components/images.py
	sed -i -E 's/^(version|appVersion): .*/\1: $(V)/' helm/crops/Chart.yaml
	sed -i -E 's/^(ARG VERSION=).*/\1$(V)/' docker/*.Dockerfile
	sed -i -E 's/(CROPS_TAG:-)[^}]*/\1$(V)/' docker/compose.yaml
	sed -i -E 's/(crops\/(mine|train):).*/\1$(V)/' configs/kubeflow.yaml
	$(BIN)/python -m pipelines.compile

clean: ## remove what runs and builds left (not .venv)
	rm -rf runs build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
