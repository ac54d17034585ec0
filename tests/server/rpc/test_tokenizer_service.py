"""What a client gets from a real server on a real port."""

from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from foldmint.v1 import tokenizer_pb2 as pb
from foldmint.v1 import tokenizer_pb2_grpc as rpc
from foldmint_tokenizer import StructureTokenizer, backbone, read_backbones
from helpers.chains import RealChain
from helpers.support import RunningServer


@pytest.fixture(scope="module")
def tokenizer() -> StructureTokenizer:
    return StructureTokenizer.load()


def _options(told: dict[str, bool]) -> pb.TokenizeOptions:
    options = pb.TokenizeOptions()
    for name, value in told.items():
        setattr(options, name, value)
    return options


def of_file(path: Path, **options: bool) -> pb.TokenizeRequest:
    return pb.TokenizeRequest(file=pb.StructureFile(content=path.read_bytes()), options=_options(options))


def of_chains(chains: list[RealChain]) -> pb.TokenizeRequest:
    return pb.TokenizeRequest(
        backbones=pb.Backbones(
            chains=[
                pb.Backbone(
                    chain=chain.id,
                    coordinates=chain.coordinates.astype("<f4").tobytes(),
                    residue_index=chain.residue_index.tolist(),
                    sequence=chain.sequence,
                )
                for chain in chains
            ]
        )
    )


def tokens(response: pb.TokenizeResponse) -> list[list[int]]:
    return [list(chain.tokens) for chain in response.chains]


@pytest.mark.parametrize("name", ["1a8o.pdb", "1a8o.cif", "1lcd.cif.gz", "2beg.cif.gz", "4cup.cif.gz", "1gbt.cif.gz"])
def test_the_same_tokens_as_in_process(
    stub: rpc.TokenizerServiceStub, tokenizer: StructureTokenizer, data: Path, name: str
) -> None:
    response = stub.Tokenize(of_file(data / name, distances=True))
    expected = tokenizer.tokenize(data / name, distances=True)
    assert (response.model, response.codebook_version) == (tokenizer.model.name, "000001")
    for own, chain in zip(response.chains, expected, strict=True):
        assert (own.chain, own.sequence, own.insertion_codes) == (chain.chain, chain.sequence, chain.insertion_codes)
        assert list(own.tokens) == chain.tokens.tolist()
        assert list(own.residue_index) == chain.residue_index.tolist()
        assert list(own.has_frame) == chain.has_frame.tolist()
        assert chain.distances is not None
        np.testing.assert_allclose(list(own.distances), chain.distances, rtol=1e-4)


def test_file_coordinates_and_stream_agree(stub: rpc.TokenizerServiceStub, data: Path) -> None:
    by_file = tokens(stub.Tokenize(of_file(data / "2beg.cif.gz")))
    chains = [
        RealChain(c.chain, c.sequence, c.residue_index, c.coordinates) for c in read_backbones(data / "2beg.cif.gz")
    ]
    assert tokens(stub.Tokenize(of_chains(chains))) == by_file
    items = [pb.TokenizeStreamRequest(id=7, request=of_chains(chains))]
    (answer,) = stub.TokenizeStream(iter(items))
    assert answer.id == 7
    assert tokens(answer.response) == by_file


def test_options(stub: rpc.TokenizerServiceStub, tokenizer: StructureTokenizer, data: Path) -> None:
    response = stub.Tokenize(of_file(data / "2beg.cif.gz", complex=True, special_tokens=True))
    expected = tokenizer.tokenize(data / "2beg.cif.gz", complex=True, special_tokens=True)
    assert tokens(response) == [chain.tokens.tolist() for chain in expected]
    assert not response.chains[0].distances


def test_missing_atoms_are_nan(stub: rpc.TokenizerServiceStub, chains: list[RealChain]) -> None:
    x = chains[5].coordinates.copy()
    x[4, 1] = np.nan
    broken = RealChain("q", chains[5].sequence, chains[5].residue_index, x)
    (chain,) = stub.Tokenize(of_chains([broken])).chains
    assert [place for place, has in enumerate(chain.has_frame) if not has] == [4]


def test_numbers_default_to_one_two_three(stub: rpc.TokenizerServiceStub, chains: list[RealChain]) -> None:
    request = of_chains([chains[5]])
    del request.backbones.chains[0].residue_index[:]
    (chain,) = stub.Tokenize(request).chains
    assert list(chain.residue_index) == list(range(1, len(chains[5].sequence) + 1))


def test_a_stream_answers_all_and_goes_on_after_failures(
    stub: rpc.TokenizerServiceStub, tokenizer: StructureTokenizer, chains: list[RealChain]
) -> None:
    def items() -> Iterator[pb.TokenizeStreamRequest]:
        for place, chain in enumerate(chains):
            yield pb.TokenizeStreamRequest(id=place, request=of_chains([chain]))
            yield pb.TokenizeStreamRequest(
                id=10_000 + place, request=pb.TokenizeRequest(file=pb.StructureFile(content=b"junk"))
            )

    answers = {answer.id: answer for answer in stub.TokenizeStream(items())}
    assert len(answers) == 2 * len(chains)
    for place, chain in enumerate(chains):
        (expected,) = tokenizer.tokenize(backbone(chain.coordinates, chain.residue_index))
        assert tokens(answers[place].response) == [expected.tokens.tolist()]
        failure = answers[10_000 + place].failure
        assert failure.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
        assert [violation.field for violation in failure.violations] == ["file.content"]


def test_get_model(stub: rpc.TokenizerServiceStub, tokenizer: StructureTokenizer) -> None:
    about = stub.GetModel(pb.GetModelRequest())
    model = tokenizer.model
    assert (about.model, about.encoder_digest, about.codebook_digest) == (
        model.name,
        model.encoder_digest,
        model.codebook.digest,
    )
    assert (about.sizes.width, about.sizes.codes) == (model.config.width, 4096)
    assert (about.vocabulary.mask, about.vocabulary.chainbreak) == (4096, 4100)
    assert about.limits.residues == 100_000


def test_health(server: RunningServer) -> None:
    with grpc.insecure_channel(server.address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for name in ("", "foldmint.v1.TokenizerService"):
            status = health.Check(  # type: ignore[attr-defined]
                health_pb2.HealthCheckRequest(service=name)
            ).status
            assert status == health_pb2.HealthCheckResponse.SERVING
