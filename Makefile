# make demo: see it work.  make serve: keep it up.  make traffic: give it something to do.  make test: run the tests.
PYTHON ?= python3
BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo serve traffic test test-all test-long lint protos contract reference real-files docs wheel lock audit sbom clean
.DEFAULT_GOAL := demo

$(BIN)/python:
	$(PYTHON) -m venv .venv

# A stamp for each set of packages; the smaller one lets a newcomer see the demo sooner.
.venv/server.stamp: pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) --editable '.[server,parquet]'
	touch $@

.venv/dev.stamp: pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) --editable '.[dev]'
	touch $@ .venv/server.stamp

# The reference that the parity tests compare with, apart from the environment.
.reference/stamp: tests/reference.txt | $(BIN)/python
	rm -rf .reference
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --target .reference --requirement $<
	touch $@

demo: .venv/server.stamp
	$(BIN)/python examples/demo.py

serve: .venv/server.stamp
	$(BIN)/foldmint-server --log-format console

# Real chains, three times, through the server that `make serve` keeps up.
traffic: .venv/server.stamp
	@$(BIN)/python examples/traffic.py

# A worker for each core, up to four: most tests wait for servers and processes, and each of those has one thread.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder
test: .venv/dev.stamp .reference/stamp
	$(PYTEST)

# With the slow tests as well: kills, Envoy, browser, Prometheus and Grafana, documentation sessions, torchrun.
test-all: .venv/dev.stamp .reference/stamp
	$(PYTEST) -m "not long"

# Twenty thousand residues through the reference at its published size, and other long forms.
test-long: .venv/dev.stamp .reference/stamp
	$(BIN)/python -m pytest -m long

lint: .venv/dev.stamp
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/buf lint protos
	$(BIN)/buf breaking protos --against protos/landed.binpb
	$(BIN)/hadolint Dockerfile deploy/ray/Dockerfile

# The Python code of the contract, from its .proto files.
protos: .venv/dev.stamp
	$(BIN)/python protos/generate.py

# Declare the contract as landed: later changes must stay compatible with it.
contract: .venv/dev.stamp
	test ! -e protos/landed.binpb || $(BIN)/buf breaking protos --against protos/landed.binpb
	$(BIN)/buf build protos --output protos/landed.binpb

reference: .reference/stamp

# Real structure files out of other projects' packages, for `pytest -m slow`; they are never committed.
real-files: .venv/dev.stamp
	$(BIN)/python tests/helpers/real_files.py

# The documentation as a site, in dist/docs; a broken link fails.
docs: .venv/dev.stamp
	for page in cli metrics proto settings; do $(BIN)/python docs/generate_$$page.py || exit 1; done
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

wheel: .venv/dev.stamp
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .

# What the image installs, by version and hash: supply/*.txt. Versions stay as they are where they still fit; to renew
# one, change constraints.txt, or take its lines out of the lock.
LOCK := $(BIN)/uv pip compile --quiet --generate-hashes --constraint constraints.txt --python-version 3.11 \
  --python-platform x86_64-manylinux_2_28 --custom-compile-command 'make lock'
IMAGE := pyproject.toml --extra server --extra maintenance --extra bulk --extra s3

lock: .venv/dev.stamp
	$(LOCK) $(IMAGE) --extra gpu --output-file supply/cu130.txt
	$(LOCK) $(IMAGE) --config-file supply/torch-cpu.toml --no-emit-package torch --output-file supply/cpu.txt
	$(LOCK) supply/build.in --output-file supply/build.txt

# Known vulnerabilities of what the image installs; also fails where no advisory service can be reached.
audit: .venv/dev.stamp
	$(BIN)/python supply/audit.py

# Bills of materials, one of each lock, in dist/. The image has its own, of what was installed.
LOCKS := torch-cpu cpu cu130 build
DIST := dist
sbom: .venv/dev.stamp
	mkdir -p $(DIST)
	for lock in $(LOCKS); do $(BIN)/cyclonedx-py requirements --pyproject pyproject.toml --output-reproducible \
	  --output-file $(DIST)/$$lock.cdx.json supply/$$lock.txt || exit 1; done

clean:
	rm -rf .venv .reference dist
