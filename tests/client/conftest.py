"""A server of the contract on a real port, whose every answer a test may script; and both clients behind one face."""

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, TypeAlias

import grpc
import numpy as np
import pytest
import trustme
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from foldmint.v1 import tokenizer_pb2, tokenizer_pb2_grpc
from foldmint_client import AsyncClient, Client, Decoded, Health, ModelInfo, Retry, Tls, Tokens
from helpers.servers.grpc_fault import Fault, Violations

Request: TypeAlias = tokenizer_pb2.TokenizeStreamRequest
Response: TypeAlias = tokenizer_pb2.TokenizeStreamResponse


LEFT_OUT = [
    tokenizer_pb2.LeftOut(
        kind=tokenizer_pb2.LEFT_OUT_KIND_HETATM, chain="A", residues=4, names=["MSE", "SEP"], of_protein=True
    ),
    tokenizer_pb2.LeftOut(kind=tokenizer_pb2.LEFT_OUT_KIND_WATER, chain="W", residues=90, names=["HOH"]),
    tokenizer_pb2.LeftOut(kind=99, residues=1, of_protein=True),  # type: ignore[arg-type]  # of a newer server
]


def answer(request: tokenizer_pb2.TokenizeRequest) -> tokenizer_pb2.TokenizeResponse:
    """A chain of three residues whose tokens begin with the number in the file; or the backbones' own chains.

    Of a file that says `lossy`, residues were left out, and there is a warning.
    """
    response = tokenizer_pb2.TokenizeResponse(model="scripted", codebook_version="000007")
    if request.WhichOneof("structure") == "backbones":
        for backbone in request.backbones.chains:
            residues = len(backbone.coordinates) // 36
            index = backbone.residue_index or range(1, residues + 1)
            response.chains.add(
                chain=backbone.chain,
                sequence=backbone.sequence or "X" * residues,
                residue_index=index,
                tokens=range(residues),
                has_frame=[True] * residues,
            )
        return response
    content = request.file.content
    first = int(content) if content.isdigit() else len(content) % 4096
    chain = response.chains.add(
        chain="A",
        sequence="GAS",
        residue_index=[-1, 5, 5],
        insertion_codes="  A",
        tokens=[first, first + 1, first + 2],
        has_frame=[True, True, False],
    )
    response.reading = request.file.reading or tokenizer_pb2.READING_ALL
    if content == b"lossy":
        response.left_out.extend(LEFT_OUT)
        response.warnings.append("a warning")
    if request.options.distances:
        chain.distances.extend([0.1, 2.5, float("nan")])
    return response


MASK, EOS, BOS, CHAINBREAK = 4096, 4097, 4098, 4100


def decoded(request: tokenizer_pb2.DetokenizeRequest) -> tokenizer_pb2.DetokenizeResponse:
    """Chains whose residues lie where their tokens say: token 7 has all its coordinates 7; NaN without a frame."""
    response = tokenizer_pb2.DetokenizeResponse(model="scripted", codebook_version="000007", ptm=0.75)
    chains: list[list[int]] = [[]]
    for token in request.tokens:
        if token == CHAINBREAK:
            chains.append([])
        elif token not in (BOS, EOS):
            chains[-1].append(token)
    labels = request.chains or [tokenizer_pb2.ChainLabels(chain="ABC"[place]) for place in range(len(chains))]
    for tokens, label in zip(chains, labels, strict=True):
        frames = np.array(label.has_frame or [True] * len(tokens))
        response.chains.add(
            chain=label.chain,
            sequence=label.sequence or "X" * len(tokens),
            residue_index=label.residue_index or range(1, len(tokens) + 1),
            insertion_codes=label.insertion_codes,
            coordinates=np.repeat(np.where(frames, np.array(tokens, "<f4"), np.float32(np.nan)), 9).tobytes(),
            plddt=np.where(frames, 0.5, np.nan).tolist(),
        )
    residues = sum(map(len, chains))
    if request.options.pae:
        response.pae = np.arange(residues**2, dtype="<f4").tobytes()
    if request.options.format:
        response.file = f"format {request.options.format}: {[*chain.from_iterable(chains)]}\n".encode()
    return response


class Scripted(tokenizer_pb2_grpc.TokenizerServiceServicer):
    """The servicer: `faults` are used up first, one a call; `stream` may be replaced."""

    def __init__(self) -> None:
        self.faults: deque[Fault] = deque()
        self.requests: list[tokenizer_pb2.TokenizeRequest] = []
        self.detokenize_requests: list[tokenizer_pb2.DetokenizeRequest] = []
        self.detokenize: Callable[[tokenizer_pb2.DetokenizeRequest], tokenizer_pb2.DetokenizeResponse] = decoded
        self.has_decoder = True
        self.models = 0
        self.metadata: list[dict[str, str | bytes]] = []
        self.time_remaining: list[float] = []
        self.streams = 0
        self.stream: Callable[[Iterator[Request], grpc.ServicerContext], Iterator[Response]] = answers
        self.hang = threading.Event()  # set at the end of the test, so that nothing hangs for good
        self.hanging = False
        self.message_bytes = 0

    def Tokenize(self, request: tokenizer_pb2.TokenizeRequest, context: Any) -> tokenizer_pb2.TokenizeResponse:  # noqa: N802
        self.requests.append(request)
        self._begin(context)
        return answer(request)

    def TokenizeStream(self, request_iterator: Any, context: Any) -> Iterator[Response]:  # noqa: N802
        self.streams += 1
        self._begin(context)
        return self.stream(self._noted(request_iterator), context)

    def Detokenize(  # noqa: N802
        self, request: tokenizer_pb2.DetokenizeRequest, context: Any
    ) -> tokenizer_pb2.DetokenizeResponse:
        self.detokenize_requests.append(request)
        self._begin(context)
        if MASK in request.tokens:
            place = list(request.tokens).index(MASK)
            Fault(grpc.StatusCode.INVALID_ARGUMENT, "a mask", [(f"tokens[{place}]", "a mask")]).abort(context)
        if request.codebook_version not in ("", "000007"):
            Fault(grpc.StatusCode.FAILED_PRECONDITION, "tokens of another codebook").abort(context)
        return self.detokenize(request)

    def GetModel(  # noqa: N802
        self,
        request: tokenizer_pb2.GetModelRequest,  # noqa: ARG002
        context: Any,
    ) -> tokenizer_pb2.GetModelResponse:
        self.models += 1
        self._begin(context)
        decoder = tokenizer_pb2.DecoderInfo(digest="ef" * 32, width=64, heads=4, layers=2, chained=True)
        return tokenizer_pb2.GetModelResponse(
            model="scripted",
            encoder_digest="ab" * 32,
            codebook_version="000007",
            codebook_digest="cd" * 32,
            sizes=tokenizer_pb2.ModelSizes(width=128, heads=16, layers=2, out=32, codes=4096),
            vocabulary=tokenizer_pb2.Vocabulary(codes=4096, mask=4096, eos=4097, bos=4098, pad=4099, chainbreak=4100),
            limits=tokenizer_pb2.RequestLimits(
                residues=10, chains=2, message_bytes=self.message_bytes, detokenize_residues=5
            ),
            server_version="0.1.0",
            decoder=decoder if self.has_decoder else None,
        )

    def _begin(self, context: Any) -> None:
        self.metadata.append(dict(context.invocation_metadata()))
        if context.time_remaining() is not None:
            self.time_remaining.append(context.time_remaining())
        if self.hanging:
            self.hang.wait(5)
        if self.faults:
            self.faults.popleft().abort(context)

    def _noted(self, requests: Iterator[Request]) -> Iterator[Request]:
        for request in requests:
            self.requests.append(request.request)
            yield request


def stream_answer(request: Request) -> Response:
    """The answer to one structure of a stream; a file that says `bad` is refused."""
    if request.request.file.content == b"bad":
        failure = tokenizer_pb2.Failure(code=3, message="no protein")
        failure.violations.add(field="file.content", description="there is no protein in the file")
        return Response(id=request.id, failure=failure)
    return Response(id=request.id, response=answer(request.request))


def answers(requests: Iterator[Request], context: grpc.ServicerContext) -> Iterator[Response]:
    return map(stream_answer, requests)


@dataclass
class ScriptedServer:
    """A server that runs. port: of 127.0.0.1."""

    servicer: Scripted
    health: health.HealthServicer
    port: int
    ca: Path | None = None
    sleeps: list[float] = field(default_factory=list)

    @property
    def target(self) -> str:
        return f"localhost:{self.port}" if self.ca else f"127.0.0.1:{self.port}"

    def fail(
        self,
        code: grpc.StatusCode,
        times: int = 1,
        violations: Violations | None = None,
        retry_after: float | None = None,
        message: str = "as scripted",
    ) -> None:
        """Let the next calls fail."""
        fault = Fault(code, message, violations or [], retry_after)
        self.servicer.faults.extend(fault for _ in range(times))

    def answer(self, request: Request) -> Response:
        """What a stream answers unless scripted otherwise."""
        return stream_answer(request)

    def both(self, kind: str, **options: Any) -> "Both":
        return Both(kind, self, {"retry": Retry(initial_backoff=0.01, maximum_backoff=0.02), **options})


@dataclass
class Both:
    """Either client: each call opens one, calls it and closes it. Pauses between tries are noted, not slept."""

    kind: str
    server: ScriptedServer
    options: dict[str, Any]

    def sync(self) -> Client:
        return Client(self.server.target, sleep=self.server.sleeps.append, **self.options)

    def aio(self) -> AsyncClient:
        async def sleep(seconds: float) -> None:
            self.server.sleeps.append(seconds)

        return AsyncClient(self.server.target, sleep=sleep, **self.options)

    def call(self, name: str, *arguments: Any, **keywords: Any) -> Any:
        async def call() -> Any:
            async with self.aio() as client:
                return await getattr(client, name)(*arguments, **keywords)

        if self.kind == "async":
            return asyncio.run(call())
        with self.sync() as client:
            return getattr(client, name)(*arguments, **keywords)

    def tokenize(self, structure: Any, **options: Any) -> Tokens:
        tokens: Tokens = self.call("tokenize", structure, **options)
        return tokens

    def detokenize(self, tokens: Any, **options: Any) -> Decoded:
        result: Decoded = self.call("detokenize", tokens, **options)
        return result

    def model(self) -> ModelInfo:
        model: ModelInfo = self.call("model")
        return model

    def health(self, service: str = "") -> Health:
        status: Health = self.call("health", service)
        return status

    def many(
        self, structures: Iterable[Any], each: Callable[[], object] = lambda: None, **options: Any
    ) -> list[tuple[Any, Any]]:
        """All results of tokenize_many; `each` is called after each."""

        async def collect() -> list[tuple[Any, Any]]:
            async with self.aio() as client:
                return [(result, each())[0] async for result in client.tokenize_many(structures, **options)]

        if self.kind == "async":
            return asyncio.run(collect())
        with self.sync() as client:
            return [(result, each())[0] for result in client.tokenize_many(structures, **options)]


def run(credentials: grpc.ServerCredentials | None = None) -> Iterator[ScriptedServer]:
    servicer, checks = Scripted(), health.HealthServicer()
    server = grpc.server(ThreadPoolExecutor(16), options=[("grpc.max_receive_message_length", 8 * 2**20)])
    tokenizer_pb2_grpc.add_TokenizerServiceServicer_to_server(servicer, server)
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    checks.set("", health_pb2.HealthCheckResponse.SERVING)
    address = "localhost:0" if credentials else "127.0.0.1:0"
    port = server.add_secure_port(address, credentials) if credentials else server.add_insecure_port(address)
    server.start()
    yield ScriptedServer(servicer, checks, port)
    servicer.hang.set()
    server.stop(0).wait()


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    yield from run()


@pytest.fixture(params=["sync", "async"])
def client(request: pytest.FixtureRequest, server: ScriptedServer) -> Both:
    return server.both(request.param)


@dataclass
class Certificates:
    """Paths of PEM files: an authority, and what it signed."""

    ca: Path
    certificate: Path
    key: Path

    @property
    def tls(self) -> Tls:
        return Tls(self.ca, self.certificate, self.key)


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    folder = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    caller = authority.issue_cert("localhost")
    files = Certificates(folder / "ca.pem", folder / "cert.pem", folder / "key.pem")
    authority.cert_pem.write_to_path(str(files.ca))
    files.certificate.write_bytes(b"".join(blob.bytes() for blob in caller.cert_chain_pems))
    caller.private_key_pem.write_to_path(str(files.key))
    return files


@pytest.fixture
def tls_server(certificates: Certificates) -> Iterator[ScriptedServer]:
    """A server that wants the caller's certificate."""
    pair = (certificates.key.read_bytes(), certificates.certificate.read_bytes())
    credentials = grpc.ssl_server_credentials([pair], certificates.ca.read_bytes(), require_client_auth=True)
    for server in run(credentials):
        server.ca = certificates.ca
        yield server
