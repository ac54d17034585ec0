"""What all tests share: a real server, and word of parts that are missing."""

import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import grpc
import pytest

from foldmint.v1 import codebook_pb2_grpc
from foldmint.v1 import tokenizer_pb2 as pb
from foldmint.v1 import tokenizer_pb2_grpc as rpc
from helpers.chains import ChainLike
from helpers.forking import ForkedModule

ROOT = Path(__file__).resolve().parent.parent.parent
DATA = ROOT / "tests" / "data"


# The reference speaks to older releases of torch.
REFERENCE_WARNINGS = [
    pytest.mark.filterwarnings("ignore:`torch.cuda.amp.autocast:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Using a non-tuple sequence:UserWarning"),
]


def missing(part: str, remedy: str) -> NoReturn:
    """Say that a test's real part is missing: a skip on a desk, a failure in CI, where none may be."""
    text = f"{part} is missing; {remedy}"
    if os.environ.get("CI"):
        pytest.fail(text)
    pytest.skip(text)


@dataclass(frozen=True)
class RunningServer:
    """A foldmint-server process. address, metrics, admin: HOST:PORT."""

    process: "ForkedModule | subprocess.Popen[str]"
    address: str
    metrics: str
    admin: str


@contextmanager
def running_server(
    *arguments: str,
    environment: dict[str, str] | None = None,
    log: Path | None = None,
    module: str = "foldmint_server.cli",
    code: int = 0,
    fresh: bool = False,
) -> Iterator[RunningServer]:
    """A real server on free ports, stopped by SIGTERM if it has not ended; fails if it does not end with this code.

    log: where its log goes. module: that is run, with the server's options. fresh: in an interpreter of its own, as
    the command starts it; else forked from a process that has imported what it needs, which saves seconds.

    Who reaches its admin listener may exchange the codebook, unless the arguments say `--no-insecure-admin`.
    """
    options = ["--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]
    options += ["--insecure-admin", "--log-level", "warning", *arguments]
    roots = [str(ROOT / name) for name in ("protos", "tokenizer", "server", "tests")]
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(roots), **(environment or {})}
    process: ForkedModule | subprocess.Popen[str]
    if fresh:
        with ExitStack() as files:
            process = subprocess.Popen(
                [sys.executable, "-m", module, *options],
                stdout=subprocess.PIPE,
                stderr=None if log is None else files.enter_context(log.open("a")),
                text=True,
                env=variables,
            )
    else:
        process = ForkedModule(module, options, variables, log)
    try:
        assert process.stdout is not None
        lines = [process.stdout.readline().strip() for _ in range(3)]
        assert lines[0].startswith("listening on "), f"the server said {lines}, exit code {process.poll()}"
        assert lines[1].startswith("metrics on ")
        assert lines[2].startswith("admin on ")
        yield RunningServer(process, *(line.split()[-1] for line in lines))
        process.terminate()
        assert process.wait(60) == code
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


@contextmanager
def stub_of(server: RunningServer) -> Iterator[rpc.TokenizerServiceStub]:
    with grpc.insecure_channel(
        server.address, options=[("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    ) as channel:
        yield rpc.TokenizerServiceStub(channel)


@contextmanager
def admin_of(server: RunningServer) -> Iterator[codebook_pb2_grpc.CodebookServiceStub]:
    with grpc.insecure_channel(server.admin, options=[("grpc.max_receive_message_length", -1)]) as channel:
        yield codebook_pb2_grpc.CodebookServiceStub(channel)


def metrics_of(server: RunningServer) -> dict[str, float]:
    """The server's metrics, by name and labels."""
    with urllib.request.urlopen(f"http://{server.metrics}/metrics", timeout=10) as page:
        lines = page.read().decode().splitlines()
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if not line.startswith("#")}


def request_of(chain: ChainLike, version: str = "") -> pb.TokenizeRequest:
    """The request for a chain's tokens, under a version of the codebook."""
    backbone = pb.Backbone(
        chain=chain.id,
        coordinates=chain.coordinates.astype("<f4").tobytes(),
        residue_index=chain.residue_index.tolist(),
    )
    return pb.TokenizeRequest(backbones=pb.Backbones(chains=[backbone]), codebook_version=version)
