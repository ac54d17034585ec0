"""Fixtures of all tests: real structures and a real server."""

import signal
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from foldmint.v1 import tokenizer_pb2_grpc as rpc
from foldmint_tokenizer.decoder import Decoder
from foldmint_tokenizer.sizes import DecoderConfig
from foldmint_tokenizer.store.model_store import create_store, load_model
from helpers.chains import RealChain, read_chains
from helpers.reference import reference_packages
from helpers.support import DATA, RunningServer, running_server, stub_of

# A shell starts what it puts in the background with SIGINT ignored, and so would all that tests start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Begun first, since they take longest: of what begins last, one worker would wait for the other.
LONGEST = [
    "test_docs_run.py",
    "test_kills.py",
    "test_esm_reading.py",
    "test_real_files.py",
    "test_exact.py",
    "test_envoy.py",
    "test_alerts.py",
    "test_fleet.py",
    "test_ray.py",
    "test_deploy_runs.py",
    "test_distributed.py",
    "test_rollout.py",
    "test_activation.py",
    "test_grafana.py",
    "test_missing_extras.py",
    "test_lifecycle.py",
    "test_dashboard_browser.py",
    "test_distributed_repair.py",
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files in the order in which they are to begin; tests of a file stay as they are."""
    place = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.name, len(LONGEST)))


@pytest.fixture(scope="session")
def data() -> Path:
    return DATA


@pytest.fixture(scope="session")
def chains() -> list[RealChain]:
    """Real chains, about 20,000 residues."""
    return list(read_chains(DATA / "chains.parquet"))


@pytest.fixture(scope="session")
def server() -> Iterator[RunningServer]:
    """A server with the embedded default model, shared by tests that do not count what it did."""
    with running_server() as running:
        yield running


@pytest.fixture(scope="session")
def stub(server: RunningServer) -> Iterator[rpc.TokenizerServiceStub]:
    with stub_of(server) as one:
        yield one


@pytest.fixture(scope="session")
def decoding_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The default model with a small decoder that was never trained."""
    torch.manual_seed(0)
    model, path = load_model(), tmp_path_factory.mktemp("store")
    decoder = Decoder(DecoderConfig(64, 4, 2, chained=True))
    codebook = model.codebook.codebook
    create_store(path, name="decoding", encoder=model.encoder, codebook=codebook, decoder=decoder, about={})
    return path


@pytest.fixture(scope="session")
def decoding_server(decoding_store: Path) -> Iterator[RunningServer]:
    """A server of a model with a decoder, shared by tests that do not count what it did."""
    with running_server("--model", str(decoding_store)) as running:
        yield running


@pytest.fixture(scope="session")
def decoding_stub(decoding_server: RunningServer) -> Iterator[rpc.TokenizerServiceStub]:
    with stub_of(decoding_server) as one:
        yield one


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """A bucket of moto's server, a real one over HTTP."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as changed:
        changed.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        changed.setenv("AWS_ACCESS_KEY_ID", "test")
        changed.setenv("AWS_SECRET_ACCESS_KEY", "test")
        changed.setenv("AWS_DEFAULT_REGION", "us-east-1")
        import s3fs

        # What moto keeps outlives its servers.
        name = f"foldmint-{uuid.uuid4().hex}"
        s3fs.S3FileSystem().mkdir(name)
        yield f"s3://{name}"
        s3fs.S3FileSystem.clear_instance_cache()
    server.stop()


@pytest.fixture(scope="session")
def reference_module() -> Any:
    """ESM's own `esm.models.vqvae`."""
    with reference_packages():
        from esm.models import vqvae
    return vqvae


@pytest.fixture(scope="session")
def reference_class(reference_module: Any) -> Any:
    """ESM's own `StructureTokenEncoder`."""
    return reference_module.StructureTokenEncoder


@pytest.fixture(scope="session")
def reference_decoder_class(reference_module: Any) -> Any:
    """ESM's own `StructureTokenDecoder`."""
    return reference_module.StructureTokenDecoder
