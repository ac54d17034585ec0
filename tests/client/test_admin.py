"""The client for operators, against a servicer whose answers are known; pinned versions, by either client."""

import json
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from typer.testing import CliRunner

from foldmint.v1 import codebook_pb2, codebook_pb2_grpc
from foldmint_client import (
    CodebookAdmin,
    DeadlineExceeded,
    FailedPrecondition,
    FoldmintError,
    InvalidOptions,
    NotFound,
    Overloaded,
    PermissionDenied,
    Retry,
    ServerError,
    Unauthenticated,
    Unavailable,
)
from foldmint_client.cli.main import app
from helpers.servers.grpc_fault import Fault

if TYPE_CHECKING:
    from client.conftest import Both, Certificates, ScriptedServer

Code = grpc.StatusCode
THEN = datetime(2026, 3, 1, 12, 30, 15, 250_000, UTC)


class Codebooks(codebook_pb2_grpc.CodebookServiceServicer):
    """Two versions, of which one is active; `faults` are used up first, one a call."""

    def __init__(self) -> None:
        self.active = "000001"
        self.before: list[str] = []
        self.faults: deque[Fault] = deque()
        self.calls: list[str] = []
        self.requests: list[Any] = []
        self.metadata: dict[str, str | bytes] = {}
        self.manifest = json.dumps({"version": "000002", "parent": "000001", "about": {"why": "é"}})
        self.hits = [0, 2**53 + 1, 7]
        self.sample = codebook_pb2.SampleEmbeddingsResponse(
            embeddings=np.arange(6, dtype="<f4").tobytes(), dimensions=3, seen=2**40, encoder_digest="ab" * 32
        )
        self.hang: threading.Event | None = None

    def ListCodebooks(self, request: Any, context: Any) -> codebook_pb2.ListCodebooksResponse:  # noqa: N802
        self._begin("ListCodebooks", request, context)
        return codebook_pb2.ListCodebooksResponse(codebooks=[self._info("000001"), self._info("000002")])

    def GetCodebook(self, request: Any, context: Any) -> codebook_pb2.GetCodebookResponse:  # noqa: N802
        self._begin("GetCodebook", request, context)
        info = self._known(request.version or self.active, context)
        return codebook_pb2.GetCodebookResponse(codebook=info, manifest=self.manifest)

    def ActivateCodebook(self, request: Any, context: Any) -> codebook_pb2.ActivateCodebookResponse:  # noqa: N802
        self._begin("ActivateCodebook", request, context)
        self._known(request.version, context)
        self.before.append(self.active)
        self.active = request.version
        return codebook_pb2.ActivateCodebookResponse(codebook=self._info(self.active), previous_version=self.before[-1])

    def RollbackCodebook(self, request: Any, context: Any) -> codebook_pb2.RollbackCodebookResponse:  # noqa: N802
        self._begin("RollbackCodebook", request, context)
        if not self.before or request.from_version not in ("", self.active):
            context.abort(Code.FAILED_PRECONDITION, "there is nothing to go back to")
        left, self.active = self.active, self.before.pop()
        return codebook_pb2.RollbackCodebookResponse(codebook=self._info(self.active), previous_version=left)

    def GetUsage(self, request: Any, context: Any) -> codebook_pb2.GetUsageResponse:  # noqa: N802
        self._begin("GetUsage", request, context)
        version = self._known(request.version or self.active, context).version
        return codebook_pb2.GetUsageResponse(version=version, hits=self.hits, since=_stamp())

    def SampleEmbeddings(self, request: Any, context: Any) -> codebook_pb2.SampleEmbeddingsResponse:  # noqa: N802
        self._begin("SampleEmbeddings", request, context)
        return self.sample

    def _begin(self, name: str, request: Any, context: Any) -> None:
        self.calls.append(name)
        self.requests.append(request)
        self.metadata = dict(context.invocation_metadata())
        if self.hang is not None:
            self.hang.wait(5)
        if self.faults:
            self.faults.popleft().abort(context)

    def _known(self, version: str, context: Any) -> codebook_pb2.CodebookInfo:
        if version not in ("000001", "000002"):
            context.abort(Code.NOT_FOUND, f"there is no codebook {version}")
        return self._info(version)

    def _info(self, version: str) -> codebook_pb2.CodebookInfo:
        if version != self.active:
            return codebook_pb2.CodebookInfo(version=version, parent="000001" if version == "000002" else "")
        return codebook_pb2.CodebookInfo(
            version=version, digest="cd" * 32, active=True, kept=True, activated=_stamp(), parent=""
        )


def _stamp() -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(THEN)
    return stamp


class Running:
    """A server that runs, and how to reach it."""

    def __init__(self, servicer: Codebooks, target: str) -> None:
        self.servicer, self.target = servicer, target

    def admin(self, **options: Any) -> CodebookAdmin:
        return CodebookAdmin(
            self.target, **{"retry": Retry(initial_backoff=0.01, maximum_backoff=0.02), "timeout": 10.0, **options}
        )


def run(credentials: grpc.ServerCredentials | None = None) -> Iterator[Running]:
    servicer, server = Codebooks(), grpc.server(ThreadPoolExecutor(4))
    codebook_pb2_grpc.add_CodebookServiceServicer_to_server(servicer, server)
    address = "localhost:0" if credentials else "127.0.0.1:0"
    port = server.add_secure_port(address, credentials) if credentials else server.add_insecure_port(address)
    server.start()
    yield Running(servicer, f"{address.partition(':')[0]}:{port}")
    if servicer.hang is not None:
        servicer.hang.set()
    server.stop(0).wait()


@pytest.fixture
def running() -> Iterator[Running]:
    yield from run()


def test_versions_and_a_manifest(running: Running) -> None:
    with running.admin() as admin:
        first, second = admin.codebooks()
        assert (first.version, first.active, first.kept, first.digest) == ("000001", True, True, "cd" * 32)
        assert (first.activated, first.parent, first.manifest) == (THEN, "", None)
        assert (second.version, second.active, second.kept, second.digest) == ("000002", False, False, "")
        assert (second.activated, second.parent) == (None, "000001")
        assert admin.codebook().version == "000001"
        one = admin.codebook("000002")
        assert one.version == "000002"
        assert one.manifest == {"version": "000002", "parent": "000001", "about": {"why": "é"}}
        with pytest.raises(NotFound, match="no codebook 000009"):
            admin.codebook("000009")


@pytest.mark.parametrize("manifest", ["{", "[]", ""])
def test_a_manifest_that_is_none(running: Running, manifest: str) -> None:
    running.servicer.manifest = manifest
    with running.admin() as admin, pytest.raises(ServerError, match=r"manifest is not (a )?JSON"):
        admin.codebook()


def test_a_codebook_is_exchanged_and_taken_back(running: Running) -> None:
    with running.admin() as admin:
        with pytest.raises(FailedPrecondition, match="nothing to go back to"):
            admin.rollback()
        done = admin.activate("000002")
        assert (done.codebook.version, done.codebook.active, done.previous_version) == ("000002", True, "000001")
        with pytest.raises(FailedPrecondition):
            admin.rollback("000001")
        back = admin.rollback("000002")
        assert (back.codebook.version, back.previous_version) == ("000001", "000002")
        with pytest.raises(NotFound):
            admin.activate("000003")
        assert running.servicer.active == "000001"


def test_usage(running: Running) -> None:
    with running.admin() as admin:
        usage = admin.usage()
        assert (usage.version, usage.since) == ("000001", THEN)
        assert usage.hits.dtype == np.uint64
        assert usage.hits.tolist() == [0, 2**53 + 1, 7]
        assert admin.usage("000002").version == "000002"
        running.servicer.hits = []
        with pytest.raises(ServerError, match="no hits"):
            admin.usage()


def test_a_sample(running: Running) -> None:
    with running.admin() as admin:
        sample = admin.sample(2)
        assert running.servicer.requests[-1].count == 2
        assert sample.embeddings.dtype == np.float32
        assert sample.embeddings.tolist() == [[0, 1, 2], [3, 4, 5]]
        assert (sample.seen, sample.encoder_digest) == (2**40, "ab" * 32)
        sample.embeddings[0] = 1  # the caller's own
        running.servicer.sample.dimensions = 4
        with pytest.raises(ServerError, match="24 bytes are not vectors of 4 dimensions"):
            admin.sample()
        assert running.servicer.requests[-1].count == 0
        running.servicer.sample.dimensions = 0
        with pytest.raises(ServerError, match="0 dimensions"):
            admin.sample()
        running.servicer.sample.embeddings, running.servicer.sample.dimensions = b"", 3
        assert admin.sample().embeddings.shape == (0, 3)


def test_what_only_asks_is_tried_again(running: Running) -> None:
    servicer = running.servicer
    with running.admin() as admin:
        asks: list[Callable[[], object]] = [admin.codebooks, admin.codebook, admin.usage, admin.sample]
        for ask in asks:
            servicer.faults.extend([Fault(Code.UNAVAILABLE)] * 2)
            servicer.calls.clear()
            assert ask() is not None
            assert len(servicer.calls) == 3
        changes: list[Callable[[], object]] = [lambda: admin.activate("000002"), admin.rollback]
        for change in changes:
            servicer.faults.append(Fault(Code.UNAVAILABLE))
            servicer.calls.clear()
            with pytest.raises(Unavailable):
                change()
            assert len(servicer.calls) == 1
    assert servicer.active == "000001"


def test_a_busy_server_is_asked_again_when_it_says(running: Running) -> None:
    servicer, pauses = running.servicer, list[float]()
    with running.admin(sleep=pauses.append) as admin:
        for call in (admin.usage, lambda: admin.activate("000002")):
            servicer.faults.append(Fault(Code.RESOURCE_EXHAUSTED, retry_after=2.5))
            assert call() is not None
        servicer.faults.append(Fault(Code.RESOURCE_EXHAUSTED))
        with pytest.raises(Overloaded):
            admin.usage()
    assert servicer.active == "000002"
    assert pauses == [2.5, 2.5]


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (Code.UNAUTHENTICATED, Unauthenticated),
        (Code.PERMISSION_DENIED, PermissionDenied),
        (Code.FAILED_PRECONDITION, FailedPrecondition),
        (Code.NOT_FOUND, NotFound),
        (Code.UNIMPLEMENTED, ServerError),
    ],
)
def test_errors_are_those_of_the_tree(running: Running, code: Code, error: type[FoldmintError]) -> None:
    with running.admin() as admin:
        for call in (admin.codebooks, admin.codebook, lambda: admin.activate("000002"), admin.rollback, admin.usage):
            running.servicer.faults.append(Fault(code))
            with pytest.raises(error, match="as scripted"):
                call()
        running.servicer.faults.append(Fault(code))
        with pytest.raises(error, match="as scripted"):
            admin.sample()


def test_a_deadline(running: Running) -> None:
    running.servicer.hang = threading.Event()
    with running.admin() as admin, pytest.raises(DeadlineExceeded):
        admin.usage(timeout=0.1)


def test_nobody_there() -> None:
    with CodebookAdmin("127.0.0.1:1", retry=Retry(attempts=1)) as admin, pytest.raises(Unavailable):
        admin.activate("000002")


def test_what_cannot_be_asked(running: Running) -> None:
    with running.admin() as admin:
        for call in (
            lambda: admin.activate(""),
            lambda: admin.codebook(""),
            lambda: admin.rollback(""),
            lambda: admin.usage(""),
            lambda: admin.sample(-1),
            lambda: admin.usage(timeout=0),
        ):
            with pytest.raises(InvalidOptions):
                call()
    assert running.servicer.calls == []


def test_certificates_and_a_token(certificates: "Certificates") -> None:
    pair = (certificates.key.read_bytes(), certificates.certificate.read_bytes())
    credentials = grpc.ssl_server_credentials([pair], certificates.ca.read_bytes(), require_client_auth=True)
    for running in run(credentials):
        with running.admin(tls=certificates.tls, token="s3cret") as admin:  # noqa: S106
            assert admin.codebook().version == "000001"
        assert running.servicer.metadata["authorization"] == "Bearer s3cret"
        with running.admin(retry=Retry(attempts=1)) as admin, pytest.raises(Unavailable):
            admin.codebook()


# Pinned versions, of the service that tokenizes: its scripted server has 000007 and nothing else.


def test_a_version_is_asked_for(client: "Both", server: "ScriptedServer") -> None:
    for version in ("000007", "ACTIVE", None):
        server.servicer.requests.clear()
        assert client.tokenize(b"1", codebook_version=version).codebook_version == "000007"
        ((_, result),) = client.many([b"1"], codebook_version=version)
        assert result.codebook_version == "000007"
        assert [request.codebook_version for request in server.servicer.requests] == [version or ""] * 2


def test_another_version_than_asked_for_is_no_answer(client: "Both") -> None:
    with pytest.raises(ServerError, match="of codebook version 000007, and 000001 was asked for"):
        client.tokenize(b"1", codebook_version="000001")
    results = client.many([b"1", b"2"], codebook_version="000001")
    assert [type(result) for _, result in results] == [ServerError] * 2
    with pytest.raises(InvalidOptions):
        client.tokenize(b"1", codebook_version="")


def test_the_command_asks_for_a_version(server: "ScriptedServer") -> None:
    def tokenize(*options: str) -> Any:
        return CliRunner().invoke(app, ["tokenize", "--server", server.target, *options, "-"], input=b"1")

    result = tokenize("--codebook-version", "000007")
    assert (result.exit_code, json.loads(result.stdout)["codebook_version"]) == (0, "000007")
    assert tokenize("--codebook-version", "ACTIVE").exit_code == 0
    assert [request.codebook_version for request in server.servicer.requests] == ["000007", "ACTIVE"]
    result = tokenize("--codebook-version", "000001")
    assert (result.exit_code, "000001 was asked for" in result.stderr) == (1, True)
    assert tokenize("--codebook-version", "").exit_code == 2
