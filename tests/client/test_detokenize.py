"""From tokens to structures, by either client: what is sent, what comes back, and what is refused."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import pytest

from foldmint.v1 import tokenizer_pb2
from foldmint_client import (
    Backbone,
    ChainLabels,
    ChainTokens,
    DeadlineExceeded,
    FailedPrecondition,
    FieldViolation,
    InvalidOptions,
    InvalidStructure,
    Overloaded,
    ServerError,
    Tokens,
)

if TYPE_CHECKING:
    from client.conftest import Both, ScriptedServer

Code = grpc.StatusCode
MASK, EOS, BOS, CHAINBREAK = 4096, 4097, 4098, 4100


def chain(name: str, tokens: list[int], residues: int | None = None) -> ChainTokens:
    """A chain whose numbers begin at 11; residues: where not all tokens are of one."""
    residues = len(tokens) if residues is None else residues
    index = np.arange(11, 11 + residues, dtype=np.int32)
    exists = np.ones(residues, np.bool_)
    return ChainTokens(name, "G" * residues, index, "", np.array(tokens, np.uint16), exists, None)


def sent(server: "ScriptedServer") -> list[int]:
    return list(server.servicer.detokenize_requests[-1].tokens)


def test_what_was_tokenized_is_taken_as_it_is(client: "Both", server: "ScriptedServer") -> None:
    decoded = client.detokenize(client.tokenize(b"4000"))
    assert (decoded.model, decoded.codebook_version, len(decoded)) == ("scripted", "000007", 3)
    assert decoded.ptm == 0.75
    assert decoded.pae is None
    assert decoded.file is None
    (one,) = decoded.chains
    assert (one.chain, one.sequence, one.insertion_codes, len(one)) == ("A", "GAS", "  A", 3)
    assert one.residue_index.tolist() == [-1, 5, 5]
    assert one.coordinates.shape == (3, 3, 3)
    assert [array.dtype for array in (one.residue_index, one.coordinates, one.plddt)] == ["int32", "float32", "float32"]
    assert one.coordinates[:2, 1, 2].tolist() == [4000, 4001]
    assert np.isnan(one.coordinates[2]).all()  # it has no frame
    assert one.gaps == 1
    assert one.plddt[:2].tolist() == [0.5, 0.5]
    one.coordinates[0] = 0  # it is the caller's own
    (request,) = server.servicer.detokenize_requests
    assert request == tokenizer_pb2.DetokenizeRequest(
        tokens=[4000, 4001, 4002],
        chains=[
            tokenizer_pb2.ChainLabels(
                chain="A",
                sequence="GAS",
                residue_index=[-1, 5, 5],
                insertion_codes="  A",
                has_frame=[True, True, False],
            )
        ],
        model="scripted",
        codebook_version="000007",
        options=tokenizer_pb2.DetokenizeOptions(),
    )
    assert server.servicer.models == 0


@pytest.mark.parametrize(
    "chains",
    [
        [chain("H", [1, 2]), chain("L", [3])],
        [chain("H", [BOS, 1, 2, EOS], 2), chain("L", [BOS, 3, EOS], 1)],  # tokenized one by one
        [chain("H", [BOS, 1, 2], 2), chain("L", [CHAINBREAK, 3, EOS], 1)],  # tokenized as a complex
    ],
)
def test_several_chains_are_joined(client: "Both", server: "ScriptedServer", chains: list[ChainTokens]) -> None:
    for tokens in (Tokens("scripted", "000007", tuple(chains)), chains):
        decoded = client.detokenize(tokens)
        assert sent(server) == [1, 2, CHAINBREAK, 3]
        assert [one.chain for one in decoded.chains] == ["H", "L"]
        assert [one.residue_index.tolist() for one in decoded.chains] == [[11, 12], [11]]
        assert [one.coordinates[:, 0, 0].tolist() for one in decoded.chains] == [[1, 2], [3]]
        client.detokenize(chains[1])
        assert sent(server) == [3]
    assert server.servicer.detokenize_requests[0].codebook_version == "000007"
    assert server.servicer.detokenize_requests[-1].codebook_version == ""


def test_the_vocabulary_is_asked_for_once(server: "ScriptedServer") -> None:
    with server.both("sync").sync() as client:
        for _ in range(3):
            client.detokenize([chain("A", [1]), chain("B", [2])])
    assert server.servicer.models == 1


@pytest.mark.parametrize("kind", [list, tuple, np.array, lambda ids: np.array(ids, np.uint16)])
def test_bare_token_ids_go_as_they_are(client: "Both", server: "ScriptedServer", kind: Any) -> None:
    decoded = client.detokenize(kind([BOS, 5, 6, CHAINBREAK, 7, EOS]))
    assert sent(server) == [BOS, 5, 6, CHAINBREAK, 7, EOS]
    assert [(one.chain, len(one)) for one in decoded.chains] == [("A", 2), ("B", 1)]
    request = server.servicer.detokenize_requests[-1]
    assert (request.model, request.codebook_version, len(request.chains)) == ("", "", 0)


def test_labels_may_come_from_elsewhere(client: "Both", server: "ScriptedServer") -> None:
    own = ChainLabels("Q", "AC", [3, 9], " B")
    for labels in ([own], [chain("Q", [8, 9])], client.detokenize([1, 2], labels=[own]).chains):
        decoded = client.detokenize([1, 2], labels=labels)
        assert decoded.chains[0].chain == "Q"
    assert server.servicer.detokenize_requests[0].chains[0] == tokenizer_pb2.ChainLabels(
        chain="Q", sequence="AC", residue_index=[3, 9], insertion_codes=" B"
    )
    assert list(server.servicer.detokenize_requests[-1].chains[0].residue_index) == [3, 9]
    # Tokens that a language model changed keep their names.
    tokens = client.tokenize(b"1")
    changed = replace(tokens, chains=(replace(tokens.chains[0], tokens=np.array([9, 8, 7], np.uint16)),))
    assert client.detokenize(changed).chains[0].sequence == "GAS"
    assert client.detokenize(changed, labels=[]).chains[0].sequence == "XXX"


def test_options_reach_the_server(client: "Both", server: "ScriptedServer") -> None:
    tokens = client.tokenize(b"1")
    decoded = client.detokenize(tokens, format="mmcif", pae=True, model="other", codebook_version="")
    (request,) = server.servicer.detokenize_requests
    assert request.options == tokenizer_pb2.DetokenizeOptions(format=tokenizer_pb2.STRUCTURE_FORMAT_MMCIF, pae=True)
    assert (request.model, request.codebook_version) == ("other", "")
    assert decoded.file == b"format 2: [1, 2, 3]\n"
    assert decoded.pae is not None
    assert decoded.pae.dtype == np.float32
    assert decoded.pae.tolist() == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]


@pytest.mark.parametrize(
    ("tokens", "labels", "field", "reason"),
    [
        ([[1, 2]], None, "tokens", r"shape is \(1, 2\)"),
        ([1.0, 2.0], None, "tokens", "float64"),
        (["a"], None, "tokens", "integers"),
        ([1, 2, -3], None, "tokens[2]", "-3 is not a token"),
        ([1, 2**32], None, "tokens[1]", "4294967296"),
        (chain("A", [1, 2, 3, 4], 1), None, "tokens", "'A' has 4 for 1 residues"),
        (chain("A", [1], 2), None, "tokens", "'A' has 1 for 2 residues"),
        ([1], [ChainLabels(residue_index=[0.5])], "chains[0].residue_index", "integers"),  # type: ignore[list-item]
        ([1], [ChainLabels(), ChainLabels(residue_index=[2**31])], "chains[1].residue_index", "32 bits"),
    ],
)
def test_what_cannot_be_sent_is_refused_here(
    client: "Both", server: "ScriptedServer", tokens: object, labels: list[ChainLabels] | None, field: str, reason: str
) -> None:
    with pytest.raises(InvalidStructure, match=reason) as caught:
        client.detokenize(tokens, labels=labels)
    assert [violation.field for violation in caught.value.violations] == [field]
    assert not server.servicer.detokenize_requests


def test_options_that_cannot_be_taken(client: "Both") -> None:
    with pytest.raises(InvalidOptions, match="'pdb', 'mmcif' or None, not 'xyz'"):
        client.detokenize([1], format="xyz")
    with pytest.raises(InvalidOptions, match="timeout"):
        client.detokenize([1], timeout=0)


def test_errors_of_the_server(client: "Both", server: "ScriptedServer") -> None:
    with pytest.raises(InvalidStructure) as caught:
        client.detokenize([1, MASK])
    assert caught.value.violations == (FieldViolation("tokens[1]", "a mask"),)
    for code, kind in (
        (Code.FAILED_PRECONDITION, FailedPrecondition),
        (Code.RESOURCE_EXHAUSTED, Overloaded),
        (Code.DEADLINE_EXCEEDED, DeadlineExceeded),
        (Code.UNIMPLEMENTED, ServerError),
    ):
        server.fail(code)
        with pytest.raises(kind):
            client.detokenize([1])
    server.fail(Code.UNAVAILABLE, times=4)
    assert client.detokenize([1]).model == "scripted"


def test_tokens_that_are_too_many_are_not_sent(client: "Both", server: "ScriptedServer") -> None:
    with pytest.raises(InvalidStructure, match=r"the tokens cannot be sent.*at most 1000 are taken"):
        server.both(client.kind, max_message_bytes=1000).detokenize([1] * 1000)
    server.servicer.message_bytes = 2**20
    with pytest.raises(InvalidStructure, match="at most 1048576 are taken"):
        client.detokenize([1] * 2**20)
    assert not server.servicer.detokenize_requests


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"coordinates": b"1234"}, "coordinates do not fit the 2 residues of chain 'A'"),
        ({"plddt": [0.5]}, "plddt do not fit"),
        ({"sequence": "G"}, "sequence do not fit"),
        ({"insertion_codes": " "}, "insertion_codes do not fit"),
    ],
)
def test_an_answer_against_the_contract_is_told(
    client: "Both", server: "ScriptedServer", change: dict[str, Any], reason: str
) -> None:
    fields = {"chain": "A", "sequence": "GG", "residue_index": [1, 2], "coordinates": bytes(72), "plddt": [0.5] * 2}
    chains = [tokenizer_pb2.DecodedChain(**{**fields, **change})]
    server.servicer.detokenize = lambda _: tokenizer_pb2.DetokenizeResponse(chains=chains)
    with pytest.raises(ServerError, match=reason):
        client.detokenize([1, 2])
    server.servicer.detokenize = lambda _: tokenizer_pb2.DetokenizeResponse(pae=bytes(4))
    with pytest.raises(ServerError, match="pae has 4 bytes"):
        client.detokenize([1, 2])


def test_backbones_of_one_name_are_decoded_too(client: "Both") -> None:
    tokens = client.tokenize([Backbone(np.zeros((2, 3, 3), np.float32)), Backbone(np.zeros((1, 3, 3), np.float32))])
    assert [(one.chain, len(one)) for one in client.detokenize(tokens).chains] == [("A", 2), ("A", 1)]
