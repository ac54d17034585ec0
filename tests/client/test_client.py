"""One structure at a time, by either client."""

import gzip
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import numpy as np
import pytest

from foldmint.v1 import tokenizer_pb2
from foldmint_client import (
    Backbone,
    Cancelled,
    Client,
    DeadlineExceeded,
    FailedPrecondition,
    FieldViolation,
    FoldmintError,
    Health,
    InvalidOptions,
    InvalidStructure,
    Overloaded,
    PermissionDenied,
    Retry,
    Selection,
    ServerError,
    Tls,
    Unauthenticated,
    Unavailable,
    UnreadableInput,
)

if TYPE_CHECKING:
    from client.conftest import Both, Certificates, ScriptedServer

Code = grpc.StatusCode


def test_a_file_by_path(client: "Both", server: "ScriptedServer", tmp_path: Path) -> None:
    path = tmp_path / "1abc.pdb"
    path.write_bytes(b"4000")
    for structure in (path, str(path)):
        tokens = client.tokenize(structure)
        assert (tokens.model, tokens.codebook_version, len(tokens)) == ("scripted", "000007", 3)
        (chain,) = tokens.chains
        assert (chain.chain, chain.sequence, chain.insertion_codes, len(chain)) == ("A", "GAS", "  A", 3)
        for array, dtype, values in (
            (chain.tokens, np.uint16, [4000, 4001, 4002]),
            (chain.residue_index, np.int32, [-1, 5, 5]),
            (chain.has_frame, np.bool_, [True, True, False]),
        ):
            assert array.dtype == dtype
            assert array.tolist() == values
        assert chain.distances is None
    assert {request.file.content for request in server.servicer.requests} == {b"4000"}


def test_bytes_go_as_they_are(client: "Both", server: "ScriptedServer") -> None:
    packed = gzip.compress(b"data_1ABC")
    client.tokenize(packed)
    assert server.servicer.requests[0].file.content == packed


def test_chains_of_a_file(client: "Both", server: "ScriptedServer", tmp_path: Path) -> None:
    path = tmp_path / "1abc.pdb"
    path.write_bytes(b"7")
    structures = [Selection(path, ["A", "B"]), Selection(b"8", []), b"9"]
    assert len(client.many(structures, chains=["X"])) == 3
    asked = {request.file.content: list(request.file.chains) for request in server.servicer.requests}
    assert asked == {b"7": ["A", "B"], b"8": [], b"9": ["X"]}


def test_options_reach_the_server(client: "Both", server: "ScriptedServer") -> None:
    tokens = client.tokenize(
        b"1", format="mmcif", model_number=3, chains=["B", "C"], complex=True, special_tokens=True, distances=True
    )
    (request,) = server.servicer.requests
    assert request == tokenizer_pb2.TokenizeRequest(
        file=tokenizer_pb2.StructureFile(
            content=b"1", format=tokenizer_pb2.STRUCTURE_FORMAT_MMCIF, model_number=3, chains=["B", "C"]
        ),
        options=tokenizer_pb2.TokenizeOptions(complex=True, special_tokens=True, distances=True),
    )
    distances = tokens.chains[0].distances
    assert distances is not None
    assert distances.dtype == np.float32
    np.testing.assert_array_equal(distances, np.array([0.1, 2.5, np.nan], np.float32))


def test_backbones(client: "Both", server: "ScriptedServer") -> None:
    coordinates = np.arange(36, dtype=np.float32).reshape(4, 3, 3)
    coordinates[1, 2] = np.nan
    strided = np.asfortranarray(coordinates.astype(np.float64))
    tokens = client.tokenize([Backbone(coordinates, [1, 2, 9, -4], "H", "ACDE"), Backbone(strided)])
    first, second = server.servicer.requests[0].backbones.chains
    for message in (first, second):
        sent = np.frombuffer(message.coordinates, "<f4").reshape(4, 3, 3)
        np.testing.assert_array_equal(sent, coordinates)
    assert (first.chain, list(first.residue_index), first.sequence) == ("H", [1, 2, 9, -4], "ACDE")
    assert (second.chain, list(second.residue_index), second.sequence) == ("A", [], "")
    assert [chain.chain for chain in tokens.chains] == ["H", "A"]
    client.tokenize(Backbone(coordinates))
    assert len(server.servicer.requests[1].backbones.chains) == 1


@pytest.mark.parametrize(
    ("coordinates", "index", "field"),
    [
        (np.zeros((4, 3), np.float32), None, "coordinates"),
        (np.zeros((4, 4, 3), np.float32), None, "coordinates"),
        (np.zeros((4, 3, 3), np.int64), None, "coordinates"),
        (np.zeros((4, 3, 3), np.float32), [1, 2, 3], "residue_index"),
        (np.zeros((2, 3, 3), np.float32), [1.5, 2.5], "residue_index"),
        (np.zeros((2, 3, 3), np.float32), [1, 2**31], "residue_index"),
    ],
)
def test_what_cannot_be_sent_is_refused_here(coordinates: object, index: object, field: str) -> None:
    with pytest.raises(InvalidStructure) as caught:
        Backbone(coordinates, index)  # type: ignore[arg-type]
    assert [violation.field for violation in caught.value.violations] == [field]


def test_unreadable_and_unfit_input_is_never_sent(client: "Both", server: "ScriptedServer", tmp_path: Path) -> None:
    with pytest.raises(UnreadableInput, match=r"none\.pdb: No such file or directory"):
        client.tokenize(tmp_path / "none.pdb")
    with pytest.raises(UnreadableInput, match="Is a directory"):
        client.tokenize(tmp_path)
    with pytest.raises(InvalidStructure, match="not int"):
        client.tokenize(7)
    with pytest.raises(InvalidOptions, match="for files"):
        client.tokenize(Backbone(np.zeros((1, 3, 3), np.float32)), chains=["A"])
    with pytest.raises(InvalidOptions, match="format"):
        client.tokenize(b"1", format="xyz")
    with pytest.raises(InvalidOptions, match="timeout"):
        client.tokenize(b"1", timeout=0)
    assert not server.servicer.requests


def test_invalid_argument_names_the_fields(client: "Both", server: "ScriptedServer") -> None:
    server.fail(Code.INVALID_ARGUMENT, violations=[("file.content", "no atoms"), ("file.chains", "chain 'Z': unknown")])
    with pytest.raises(InvalidStructure) as caught:
        client.tokenize(b"1")
    assert caught.value.violations == (
        FieldViolation("file.content", "no atoms"),
        FieldViolation("file.chains", "chain 'Z': unknown"),
    )
    assert str(caught.value) == "as scripted (file.content: no atoms; file.chains: chain 'Z': unknown)"


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (Code.RESOURCE_EXHAUSTED, Overloaded),
        (Code.DEADLINE_EXCEEDED, DeadlineExceeded),
        (Code.CANCELLED, Cancelled),
        (Code.UNAUTHENTICATED, Unauthenticated),
        (Code.PERMISSION_DENIED, PermissionDenied),
        (Code.FAILED_PRECONDITION, FailedPrecondition),
        (Code.INTERNAL, ServerError),
        (Code.UNIMPLEMENTED, ServerError),
    ],
)
def test_status_codes_become_errors(
    client: "Both", server: "ScriptedServer", code: Code, kind: type[FoldmintError]
) -> None:
    server.fail(code)
    with pytest.raises(kind, match="as scripted") as caught:
        client.tokenize(b"1")
    assert type(caught.value) is kind
    assert not isinstance(caught.value, grpc.RpcError)
    assert not isinstance(caught.value, ServerError) or caught.value.code == code.value[0]


@pytest.mark.parametrize("content", [b"1", b" " * (2**20 - 100)])  # gRPC would forget the second
def test_unavailable_is_tried_five_times(client: "Both", server: "ScriptedServer", content: bytes) -> None:
    server.fail(Code.UNAVAILABLE, times=4)
    assert client.tokenize(content).model == "scripted"
    assert len(server.servicer.requests) == 5


def test_unavailable_is_not_tried_for_ever(client: "Both", server: "ScriptedServer") -> None:
    server.fail(Code.UNAVAILABLE, times=9)
    with pytest.raises(Unavailable):
        client.tokenize(b"1")
    assert len(server.servicer.requests) == 5
    with pytest.raises(Unavailable):
        server.both(client.kind, retry=Retry(attempts=1)).tokenize(b"1")
    assert len(server.servicer.requests) == 6


def test_nobody_there(client: "Both", server: "ScriptedServer") -> None:
    server.port = 1
    with pytest.raises(Unavailable, match="Connection refused"):
        client.tokenize(b"1")


def test_every_call_has_a_deadline(client: "Both", server: "ScriptedServer") -> None:
    client.tokenize(b"1")
    client.model()
    server.both(client.kind, timeout=7).tokenize(b"1")
    assert [round(left / 10) * 10 for left in server.servicer.time_remaining] == [60, 60, 10]
    server.servicer.hanging = True
    with pytest.raises(DeadlineExceeded):
        client.tokenize(b"1", timeout=0.1)
    with pytest.raises(TimeoutError):
        server.both(client.kind, timeout=0.1).model()


def test_a_message_that_is_too_long_is_not_sent(client: "Both", server: "ScriptedServer", tmp_path: Path) -> None:
    with pytest.raises(InvalidStructure, match="at most 1000 are taken"):
        server.both(client.kind, max_message_bytes=1000).tokenize(bytes(1000))
    path = tmp_path / "large.pdb"
    path.write_bytes(bytes(1001))
    with pytest.raises(InvalidStructure, match="the file has 1001 bytes"):
        server.both(client.kind, max_message_bytes=1000).tokenize(path)
    server.servicer.message_bytes = 2**21
    with pytest.raises(InvalidStructure, match="at most 2097152 are taken"):
        client.tokenize(bytes(2**21))
    assert not server.servicer.requests
    assert client.tokenize(bytes(2**21 - 200)).model == "scripted"


@pytest.mark.parametrize(("tokens", "reason"), [([70_000], "uint16"), ([1] * 4, "tokens do not fit the 1 residues")])
def test_an_answer_against_the_contract_is_told(
    client: "Both", server: "ScriptedServer", tokens: list[int], reason: str
) -> None:
    chain = tokenizer_pb2.TokenizedChain(sequence="G", residue_index=[1], tokens=tokens, has_frame=[True])
    response = tokenizer_pb2.TokenizeResponse(chains=[chain])
    server.servicer.stream = lambda requests, _: (
        tokenizer_pb2.TokenizeStreamResponse(id=request.id, response=response) for request in requests
    )
    ((_, error),) = client.many([b"1"])
    assert isinstance(error, ServerError)
    assert reason in str(error)


def test_model(client: "Both") -> None:
    model = client.model()
    assert (model.model, model.codebook_version, model.server_version) == ("scripted", "000007", "0.1.0")
    assert (model.encoder_digest, model.codebook_digest) == ("ab" * 32, "cd" * 32)
    assert vars(model.sizes) == {"width": 128, "heads": 16, "layers": 2, "out": 32, "codes": 4096}
    assert (model.vocabulary.mask, model.vocabulary.chainbreak) == (4096, 4100)
    assert (model.limits.residues, model.limits.chains, model.limits.detokenize_residues) == (10, 2, 5)
    assert model.decoder is not None
    sizes = {"width": 64, "heads": 4, "layers": 2}
    assert vars(model.decoder) == sizes | {"digest": "ef" * 32, "chained": True, "reads_vectors": False}
    assert model.lever is None


def test_a_model_without_a_decoder(client: "Both", server: "ScriptedServer") -> None:
    server.servicer.has_decoder = False
    assert client.model().decoder is None


def test_health(client: "Both", server: "ScriptedServer") -> None:
    assert client.health() is Health.SERVING
    assert client.health("foldmint.v1.TokenizerService") is Health.SERVICE_UNKNOWN
    server.health.enter_graceful_shutdown()
    assert client.health() is Health.NOT_SERVING
    server.port = 1
    with pytest.raises(Unavailable):
        client.health()


def test_a_token_goes_with_every_call(client: "Both", server: "ScriptedServer") -> None:
    caller = server.both(client.kind, token="s3cret")  # noqa: S106
    caller.tokenize(b"1")
    caller.model()
    caller.many([b"1"])
    assert [metadata["authorization"] for metadata in server.servicer.metadata] == ["Bearer s3cret"] * 3
    client.tokenize(b"1")
    assert "authorization" not in server.servicer.metadata[-1]


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_mutual_tls_with_a_token(kind: str, tls_server: "ScriptedServer", certificates: "Certificates") -> None:
    caller = tls_server.both(kind, tls=certificates.tls, token="s3cret")  # noqa: S106
    assert caller.tokenize(b"1").model == "scripted"
    assert tls_server.servicer.metadata[0]["authorization"] == "Bearer s3cret"
    with pytest.raises(Unavailable):
        tls_server.both(kind, tls=Tls(certificates.ca), retry=Retry(attempts=1)).tokenize(b"1")
    with pytest.raises(UnreadableInput, match=r"none\.pem: No such file"):
        tls_server.both(kind, tls=Tls("none.pem")).tokenize(b"1")


def test_threads_may_share_a_client(server: "ScriptedServer") -> None:
    from concurrent.futures import ThreadPoolExecutor

    with Client(server.target) as client, ThreadPoolExecutor(8) as pool:
        results = pool.map(lambda number: client.tokenize(str(number).encode()), range(40))
        assert [int(result.chains[0].tokens[0]) for result in results] == [*range(40)]
