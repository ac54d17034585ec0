"""Structures that hypothesis makes up: the fast path, the plain path and a server agree, or refuse with the reason.

The plain path is `Encoder.forward` over all rows at once, the mathematics as written down; the fast path is what runs.
"""

from collections.abc import Callable, Sequence

import grpc
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.stress import wire
from foldmint.v1 import tokenizer_pb2 as pb
from foldmint.v1 import tokenizer_pb2_grpc as rpc
from foldmint_tokenizer import Backbone, InvalidStructure, StructureTokenizer, TokenizedChain, read_backbones
from foldmint_tokenizer.codebook import nearest_code
from foldmint_tokenizer.neighborhoods import structure_geometry
from helpers.strategies import Chain, as_mmcif, as_pdb, chains, readable, structures

# The same examples on each run; how long one takes is the machine's matter.
REPEATABLE = settings(
    max_examples=250, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
FEW = settings(REPEATABLE, max_examples=100)
# Of distances between vectors and codes, which are about 1: what rounding in another order may change.
TOLERANCE = 1e-3


@pytest.fixture(scope="module")
def tokenizer() -> StructureTokenizer:
    return StructureTokenizer.load()


def backbones_of(structure: Sequence[Chain]) -> list[Backbone]:
    """What the server makes of it. Raises InvalidStructure."""
    if not structure:
        raise InvalidStructure("backbones.chains", "no chains")
    return [
        Backbone(chain.name, chain.sequence or "X" * len(chain.index), chain.index, chain.coordinates)
        for chain in structure
    ]


def request_of(structure: Sequence[Chain], complex_: bool) -> pb.TokenizeRequest:
    messages = [
        pb.Backbone(
            chain=chain.name,
            coordinates=chain.coordinates.astype("<f4").tobytes(),
            residue_index=chain.index.tolist(),
            sequence=chain.sequence,
        )
        for chain in structure
    ]
    options = pb.TokenizeOptions(complex=complex_, distances=True)
    return pb.TokenizeRequest(backbones=pb.Backbones(chains=messages), options=options)


def in_process(call: Callable[[], Sequence[TokenizedChain]]) -> Sequence[TokenizedChain] | None:
    """The tokens; None for a clean refusal."""
    try:
        return call()
    except InvalidStructure as error:
        refusal = error
    assert str(refusal).isprintable(), repr(str(refusal))
    assert refusal.field
    return None


def served(stub: rpc.TokenizerServiceStub, request: pb.TokenizeRequest) -> pb.TokenizeResponse | None:
    """The answer; None for a clean refusal, with the field at fault."""
    try:
        return stub.Tokenize(request, timeout=120)
    except grpc.RpcError as error:
        refusal = error
    assert wire.refused(refusal) == "refused"
    return None


def check_plain(
    tokenizer: StructureTokenizer, backbones: list[Backbone], found: Sequence[TokenizedChain], complex_: bool
) -> None:
    """The tokens are the plain path's, but for rounding; residues without a frame have the one code for that."""
    shape = structure_geometry(backbones, complex_)
    tokens = np.concatenate([chain.tokens for chain in found])
    has_frame = np.concatenate([chain.has_frame for chain in found])
    assert np.flatnonzero(has_frame).tolist() == shape.queries.tolist()
    embeddings = tokenizer.model.codebook.codebook.embeddings
    encoder = tokenizer.model.encoder
    with torch.inference_mode():
        frameless, _ = nearest_code(encoder.without_frame()[None], embeddings)
        assert (tokens[~has_frame] == int(frameless)).all()
        if not len(shape.queries):
            return
        rows = shape.rows(slice(None))
        z = encoder(*(torch.from_numpy(column) for column in rows))
        _, least = nearest_code(z, embeddings)
        own = (z - embeddings[torch.from_numpy(tokens[shape.queries])]).norm(dim=1)
    assert torch.isfinite(z).all()
    assert (own - least).max() <= TOLERANCE
    distances = np.concatenate([chain.distances for chain in found if chain.distances is not None])
    assert np.isnan(distances[~has_frame]).all()
    assert np.abs(distances[shape.queries] - least.numpy()).max() <= TOLERANCE


def check_alike(answer: pb.TokenizeResponse | None, found: Sequence[TokenizedChain] | None) -> None:
    assert (answer is None) == (found is None)
    if answer is None or found is None:
        return
    assert [chain.chain for chain in answer.chains] == [chain.chain for chain in found]
    for told, own in zip(answer.chains, found, strict=True):
        assert list(told.residue_index) == own.residue_index.tolist()
        assert (told.sequence, told.insertion_codes) == (own.sequence, own.insertion_codes)
        assert list(told.tokens) == own.tokens.tolist()
        assert list(told.has_frame) == own.has_frame.tolist()


@REPEATABLE
@given(structure=structures(), complex_=st.booleans())
def test_coordinates(
    tokenizer: StructureTokenizer, stub: rpc.TokenizerServiceStub, structure: list[Chain], complex_: bool
) -> None:
    found = in_process(lambda: tokenizer.tokenize(backbones_of(structure), complex=complex_, distances=True))
    if found is not None:
        check_plain(tokenizer, backbones_of(structure), found, complex_)
    check_alike(served(stub, request_of(structure, complex_)), found)


@FEW
@given(structure=readable(), write=st.sampled_from([as_pdb, as_mmcif]), alternatives=st.booleans())
def test_files(
    tokenizer: StructureTokenizer,
    stub: rpc.TokenizerServiceStub,
    structure: list[Chain],
    write: Callable[[list[Chain], bool], bytes],
    alternatives: bool,
) -> None:
    content = write(structure, alternatives)
    found = in_process(lambda: tokenizer.tokenize(content, distances=True))
    if found is not None:
        check_plain(tokenizer, read_backbones(content), found, complex_=False)
    request = pb.TokenizeRequest(file=pb.StructureFile(content=content))
    request.options.distances = True
    check_alike(served(stub, request), found)


@FEW
@given(chain=chains())
def test_a_file_has_the_tokens_of_its_coordinates(tokenizer: StructureTokenizer, chain: Chain) -> None:
    """mmCIF keeps all digits: what is read is what was written, atoms of the second location aside."""
    written = Chain("A", chain.coordinates, np.arange(1, len(chain.index) + 1), "")
    # A residue of which nothing is left is not in the file.
    kept = ~np.isnan(written.coordinates).all((1, 2))
    direct = Chain("A", written.coordinates[kept], written.index[kept], "A" * int(kept.sum()))
    found = in_process(lambda: tokenizer.tokenize(as_mmcif([written], True)))
    expected = in_process(lambda: tokenizer.tokenize(backbones_of([direct])))
    if found is not None and expected is not None:
        # Of residues without a CA gemmi cannot tell that they are proteins', but by their names, which these have.
        assert [chain.tokens.tolist() for chain in found] == [chain.tokens.tolist() for chain in expected]


@pytest.mark.parametrize("residues", [0, 1, 20_000])
def test_short_and_long(tokenizer: StructureTokenizer, stub: rpc.TokenizerServiceStub, residues: int) -> None:
    steps = np.random.default_rng(1).normal(size=(residues, 1, 3)) * 3.8
    x = (np.cumsum(steps, 0) + np.array([(-0.6, 1.3, 0.2), (0, 0, 0), (1.2, -0.8, 0.3)])).astype(np.float32)
    chain = Chain("A", x, np.arange(1, residues + 1), "")
    found = in_process(lambda: tokenizer.tokenize(backbones_of([chain])))
    assert (found is None) == (residues == 0)
    check_alike(served(stub, request_of([chain], False)), found)
