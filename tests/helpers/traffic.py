"""Structures streamed through a server."""

from collections.abc import Iterable

from foldmint.v1 import tokenizer_pb2 as pb
from foldmint.v1 import tokenizer_pb2_grpc as rpc
from helpers.chains import ChainLike


def streamed(stub: rpc.TokenizerServiceStub, chains: Iterable[ChainLike]) -> int:
    """Stream chains through a server; returns how many residues had a frame. Fails if one gets no tokens."""
    residues = 0
    for answer in stub.TokenizeStream(
        pb.TokenizeStreamRequest(id=number, request=request_of(chain)) for number, chain in enumerate(chains)
    ):
        assert answer.HasField("response"), answer.failure
        residues += sum(answer.response.chains[0].has_frame)
    return residues


def request_of(chain: ChainLike) -> pb.TokenizeRequest:
    """A request for the tokens of a chain, numbered from 1."""
    backbone = pb.Backbone(coordinates=chain.coordinates.astype("<f4").tobytes())
    return pb.TokenizeRequest(backbones=pb.Backbones(chains=[backbone]))
