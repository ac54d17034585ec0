# Foldmint's server, with the embedded default model.
#
#   docker build --tag foldmint .
#   docker build --tag foldmint:cuda --build-arg TORCH_BUILD=cu130 .
#   docker run --publish 127.0.0.1:50051:50051 --publish 127.0.0.1:9464:9464 foldmint
#
# Without 127.0.0.1, whoever reaches the machine reaches the server; docs/security.md tells what it needs then.
# What it installs is locked by hash in supply/ (`make lock`); what it holds is listed in /opt/foldmint/sbom.cdx.json.

# The digest that docker-library/repo-info, Docker's own record, had for this tag on 2026-08-05, with Python 3.11.15. To
# renew it: `docker buildx imagetools inspect python:3.11-slim-trixie`. torch is locked for Python 3.11.
ARG BASE=python:3.11-slim-trixie@sha256:90744cff8f32887f075c47d747a173ff333e9e98801667af93c357fa9f5e28ff

FROM ${BASE} AS build
# Which build of torch: cpu, or cu130, for CUDA 13.
ARG TORCH_BUILD=cpu
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
COPY supply supply
# What builds stays here; the environment that goes into the image has not even pip.
RUN python -m venv /opt/tools && \
    /opt/tools/bin/pip install --no-deps --require-hashes --only-binary :all: --requirement supply/build.txt && \
    python -m venv --without-pip /opt/foldmint
# Before the sources, which change more often. torch for CPUs comes from an index of its own, and nothing else does.
RUN set -- --no-deps --require-hashes --only-binary :all: && \
    if [ -e "supply/torch-${TORCH_BUILD}.txt" ]; then \
      /opt/tools/bin/pip --python /opt/foldmint install "$@" --requirement "supply/torch-${TORCH_BUILD}.txt"; \
    fi && \
    /opt/tools/bin/pip --python /opt/foldmint install "$@" --requirement "supply/${TORCH_BUILD}.txt"
COPY pyproject.toml README.md LICENSE ./
COPY protos protos
COPY tokenizer tokenizer
COPY server server
COPY client client
COPY maintenance maintenance
COPY bulk bulk
RUN /opt/tools/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /opt/tools/dist . && \
    /opt/tools/bin/pip --python /opt/foldmint install --no-deps --no-index /opt/tools/dist/foldmint-*.whl && \
    /opt/tools/bin/pip --python /opt/foldmint check && \
    /opt/tools/bin/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible \
      --output-file /opt/foldmint/sbom.cdx.json /opt/foldmint

FROM ${BASE}
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin foldmint
COPY --from=build /opt/foldmint /opt/foldmint
ENV PATH=/opt/foldmint/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    FOLDMINT_LISTEN=0.0.0.0:50051 \
    FOLDMINT_METRICS_LISTEN=0.0.0.0:9464
USER 10001
EXPOSE 50051 9464
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["foldmint", "health", "--server", "localhost:50051"]
ENTRYPOINT ["foldmint-server"]
