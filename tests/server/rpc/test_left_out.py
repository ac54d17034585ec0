"""What a file holds and tokens do not cover is told by every answer; how a file is read is for the caller to say."""

from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest

from foldmint.v1 import tokenizer_pb2 as pb
from foldmint.v1 import tokenizer_pb2_grpc as rpc
from foldmint_server.rpc.responses import left_out_message
from foldmint_tokenizer import LeftOut, LeftOutKind, StructureTokenizer
from foldmint_tokenizer.store.model_store import Store, create_store
from helpers.files.pdb_text import PdbText, atom
from helpers.support import RunningServer, metrics_of, running_server, stub_of

Stub = rpc.TokenizerServiceStub


@pytest.fixture(scope="module")
def esm_store(decoding_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model, with ESM's reading as its default."""
    path, model = tmp_path_factory.mktemp("esm"), Store(decoding_store).load()
    create_store(path, name="esm", encoder=model.encoder, codebook=model.codebook.codebook, reading="esm", about={})
    return path


@pytest.fixture(scope="module")
def esm_server(esm_store: Path) -> Iterator[RunningServer]:
    with running_server("--model", str(esm_store)) as running:
        yield running


@pytest.fixture(scope="module")
def esm_stub(esm_server: RunningServer) -> Iterator[Stub]:
    with stub_of(esm_server) as stub:
        yield stub


def request(content: bytes, **fields: object) -> pb.TokenizeRequest:
    return pb.TokenizeRequest(file=pb.StructureFile(content=content, **fields))  # type: ignore[arg-type]


def both(stub: Stub, wanted: pb.TokenizeRequest) -> pb.TokenizeResponse:
    """The unary answer, which that of a stream equals."""
    response = stub.Tokenize(wanted)
    (streamed,) = stub.TokenizeStream(iter([pb.TokenizeStreamRequest(id=1, request=wanted)]))
    assert streamed.response == response
    return response


def trace(data: Path) -> bytes:
    """1A8O, of which there is nothing but CA."""
    return PdbText(data / "1a8o.pdb").each(lambda line, _: line if atom(line) == "CA" else None).bytes()


@pytest.mark.parametrize("kind", LeftOutKind)
def test_every_kind_is_part_of_the_contract(kind: LeftOutKind) -> None:
    message = left_out_message(LeftOut(kind, "A", 3, ("X", "Y")))
    assert pb.LeftOutKind.Name(message.kind) == f"LEFT_OUT_KIND_{kind.value.upper()}"
    assert (message.chain, message.residues, [*message.names]) == ("A", 3, ["X", "Y"])
    assert message.of_protein == LeftOut(kind, "A", 3, ()).of_protein


def test_a_file_without_frames_is_answered_with_a_warning(stub: Stub, data: Path) -> None:
    response = both(stub, request(trace(data)))
    (warning,) = response.warnings
    assert "only CA is present" in warning
    assert not any(response.chains[0].has_frame)
    assert [*StructureTokenizer.load().tokenize(trace(data)).warnings] == [warning]


def test_backbones_without_frames_too(stub: Stub) -> None:
    coordinates = np.full((4, 3, 3), np.nan, "<f4")
    coordinates[:, 1] = np.arange(12).reshape(4, 3)
    chains = [pb.Backbone(chain="A", coordinates=coordinates.tobytes())]
    response = both(stub, pb.TokenizeRequest(backbones=pb.Backbones(chains=chains)))
    assert "only CA is present" in response.warnings[0]
    assert response.reading == pb.READING_UNSPECIFIED
    whole = np.random.default_rng(0).normal(size=(4, 3, 3)).astype("<f4") * 3
    chains.append(pb.Backbone(chain="B", coordinates=whole.tobytes()))
    assert not both(stub, pb.TokenizeRequest(backbones=pb.Backbones(chains=chains))).warnings


def test_the_models_default_reading(stub: Stub, esm_stub: Stub, data: Path) -> None:
    content = (data / "1a8o.cif").read_bytes()
    for one, default in ((stub, pb.READING_ALL), (esm_stub, pb.READING_ESM)):
        assert one.GetModel(pb.GetModelRequest()).default_reading == default
        assert both(one, request(content)).reading == default
        for reading in (pb.READING_ALL, pb.READING_ESM):
            assert both(one, request(content, reading=reading)).reading == reading


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"reading": 9}, "file.reading"),
        ({"min_plddt": 101}, "file.min_plddt"),
        ({"min_plddt": -0.5}, "file.min_plddt"),
        ({"min_plddt": float("nan")}, "file.min_plddt"),
    ],
)
def test_wishes_that_cannot_be_met(stub: Stub, data: Path, fields: dict[str, float], field: str) -> None:
    wanted = request((data / "1a8o.cif").read_bytes(), **fields)
    with pytest.raises(grpc.RpcError) as caught:
        stub.Tokenize(wanted)
    assert isinstance(caught.value, grpc.Call)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    (answer,) = stub.TokenizeStream(iter([pb.TokenizeStreamRequest(request=wanted)]))
    assert [violation.field for violation in answer.failure.violations] == [field]


def test_what_esm_leaves_out(esm_stub: Stub, esm_server: RunningServer, esm_store: Path, data: Path) -> None:
    before = metrics_of(esm_server)
    content = (data / "1a8o.pdb").read_bytes()
    response = both(esm_stub, request(content))
    assert len(response.chains[0].tokens) == 66
    hetatm = pb.LeftOut(kind=pb.LEFT_OUT_KIND_HETATM, chain="A", residues=4, names=["MSE"], of_protein=True)
    assert hetatm in response.left_out
    waters = [one for one in response.left_out if one.kind == pb.LEFT_OUT_KIND_WATER]
    assert sum(one.residues for one in waters) == 88
    assert not any(one.of_protein for one in waters)
    name = 'foldmint_left_out_residues_total{kind="hetatm"}'
    assert metrics_of(esm_server)[name] - before[name] == 8  # alone and over a stream
    # In process the model's default is the same, and a caller's word goes before it.
    tokenizer = StructureTokenizer.load(esm_store)
    tokenized = tokenizer.tokenize(content)
    assert tokenized[0].tokens.tolist() == [*response.chains[0].tokens]
    assert LeftOut(LeftOutKind.HETATM, "A", 4, ("MSE",)) in tokenized.left_out
    assert len(tokenizer.tokenize(content, reading="all")[0].tokens) == 70
    assert len(both(esm_stub, request(content, reading=pb.READING_ALL)).chains[0].tokens) == 70


def test_residues_of_low_confidence_have_no_frame(stub: Stub, data: Path) -> None:
    numbers = PdbText(data / "1a8o.pdb").each(
        lambda line, number: f"{line[:60]}{90 if number < 200 else 40:6.2f}{line[66:]}"
    )
    response = both(stub, request(numbers.bytes(), min_plddt=70))
    (chain,) = response.chains
    assert [*chain.has_frame] == [number < 200 for number in chain.residue_index]
    assert any("70" in warning for warning in response.warnings)
