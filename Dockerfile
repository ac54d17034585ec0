# Foldmint's server, with the embedded default model.
#
#   docker build --tag foldmint .
#   docker build --tag foldmint:cuda --build-arg TORCH_BUILD=cu130 .
#   docker run --publish 50051:50051 --publish 9464:9464 foldmint
ARG PYTHON_VERSION=3.11

FROM python:${PYTHON_VERSION}-slim AS build
# Which build of torch: cpu, or a CUDA version as PyTorch names it.
ARG TORCH_BUILD=cpu
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/foldmint
ENV PATH=/opt/foldmint/bin:$PATH
WORKDIR /src
# Before the sources, which change more often.
COPY constraints.txt ./
RUN pip install --constraint constraints.txt \
      --extra-index-url "https://download.pytorch.org/whl/${TORCH_BUILD}" "torch==2.13.0+${TORCH_BUILD}"
COPY pyproject.toml README.md LICENSE ./
COPY protos protos
COPY tokenizer tokenizer
COPY server server
COPY client client
COPY maintenance maintenance
RUN pip install --constraint constraints.txt '.[server,maintenance,s3]'

FROM python:${PYTHON_VERSION}-slim
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
