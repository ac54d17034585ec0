"""Bad input gets a clear refusal that names what is at fault, and the server goes on serving."""

import gzip
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from foldmint.v1 import tokenizer_pb2 as pb
from foldmint.v1 import tokenizer_pb2_grpc as rpc
from helpers.support import running_server, stub_of


@pytest.fixture(scope="module")
def strict() -> Iterator[rpc.TokenizerServiceStub]:
    """A server with small limits."""
    arguments = ["--max-residues", "100", "--max-chains", "3", "--max-unpacked-bytes", "2000000"]
    with running_server(*arguments, "--max-message-bytes", "3000000") as server, stub_of(server) as stub:
        yield stub


def chain(coordinates: bytes, index: list[int] | None = None, sequence: str = "") -> pb.Backbone:
    return pb.Backbone(chain="B", coordinates=coordinates, residue_index=index or [], sequence=sequence)


def raw(*chains: pb.Backbone) -> pb.TokenizeRequest:
    return pb.TokenizeRequest(backbones=pb.Backbones(chains=chains))


def file(content: bytes, **fields: object) -> pb.TokenizeRequest:
    return pb.TokenizeRequest(file=pb.StructureFile(content=content, **fields))  # type: ignore[arg-type]


def positions(residues: int) -> "np.ndarray[tuple[int, int, int], np.dtype[np.float32]]":
    return np.random.default_rng(0).normal(size=(residues, 3, 3)).astype("<f4") * 10


def with_value(value: float) -> bytes:
    x = positions(4)
    x[2, 1, 0] = value
    return x.tobytes()


Request = Callable[[Path], pb.TokenizeRequest]
CASES: dict[str, tuple[Request, str, tuple[str, ...]]] = {
    "nothing": (lambda d: pb.TokenizeRequest(), "structure", ("neither",)),
    "an empty file": (lambda d: file(b""), "file.content", ("empty",)),
    "a truncated file": (lambda d: file((d / "1a8o.cif").read_bytes()[:60_000]), "file.content", ("mmCIF",)),
    "a truncated gzip": (lambda d: file((d / "4cup.cif.gz").read_bytes()[:9_000]), "file.content", ("truncated",)),
    "no structure": (lambda d: file(b"<html></html>"), "file.content", ("HTML page",)),
    "no protein": (lambda d: file(_waters(d)), "file.content", ("no protein",)),
    "a gzip bomb": (lambda d: file(gzip.compress(b" \n" * 5_000_000)), "file.content", ("unpacks to more",)),
    "a format of no name": (lambda d: file(b"data_x", format=9), "file.format", ("9",)),
    "no such model": (lambda d: file((d / "1a8o.cif").read_bytes(), model_number=-3), "file.model_number", ("-3",)),
    "no such chain": (lambda d: file((d / "1a8o.cif").read_bytes(), chains=["Q"]), "file.chains", ("'Q'",)),
    "a file of too many chains": (lambda d: file((d / "2beg.cif.gz").read_bytes()), "file.content", ("5 chains",)),
    "a file of too many residues": (lambda d: file((d / "4cup.cif.gz").read_bytes()), "file.content", ("115",)),
    "no chains": (lambda d: raw(), "backbones.chains", ("no chain",)),
    "too many chains": (lambda d: raw(*[chain(positions(2).tobytes())] * 4), "backbones.chains", ("4 chains",)),
    "too many residues": (lambda d: raw(chain(positions(101).tobytes())), "backbones.chains", ("101 residues",)),
    "no residues": (lambda d: raw(chain(b"")), "backbones.chains[0].coordinates", ("'B'", "no residue")),
    "a wrong shape": (
        lambda d: raw(chain(positions(3).tobytes()), chain(positions(3).tobytes()[:-4])),
        "backbones.chains[1].coordinates",
        ("'B'", "104 bytes", "36"),
    ),
    "a name without end": (
        lambda d: raw(pb.Backbone(chain="x" * 1_000_000, coordinates=positions(3).tobytes())),
        "backbones.chains[0].chain",
        ("'xxxxxxxxxxxxxxxxxxxx'...", "too long"),
    ),
    "a name that cannot be printed": (
        lambda d: raw(pb.Backbone(chain="\x1b[2J", coordinates=positions(3).tobytes())),
        "backbones.chains[0].chain",
        ("unprintable characters",),
    ),
    "a chain of a name without end": (
        lambda d: file((d / "1a8o.cif").read_bytes(), chains=["Q" * 1_000_000]),
        "file.chains",
        ("the file has: A",),
    ),
    "numbers of residues that are not there": (
        lambda d: raw(chain(positions(3).tobytes()), chain(positions(3).tobytes(), [1] * 101)),
        "backbones.chains[1].residue_index",
        ("101 entries up to here", "at most 100"),
    ),
    "letters of residues that are not there": (
        lambda d: raw(chain(positions(3).tobytes(), sequence="A" * 101)),
        "backbones.chains[0].sequence",
        ("101 entries up to here", "at most 100"),
    ),
    "residues in all": (
        lambda d: raw(*[chain(positions(40).tobytes())] * 3),
        "backbones.chains",
        ("120 residues; at most 100",),
    ),
    "names of too many chains": (
        lambda d: file((d / "1a8o.cif").read_bytes(), chains=["A"] * 4),
        "file.chains",
        ("4 names; at most 3",),
    ),
    "an element that a terminal would obey": (
        lambda d: file(b"ATOM  \x1b[2J"),
        "file.content",
        (r"\x1b[2J",),
    ),
    "infinity": (
        lambda d: raw(chain(with_value(np.inf), [5, 6, 7, 8])),
        "backbones.chains[0].coordinates",
        ("'B'", "residue 7", "inf"),
    ),
    "a coordinate too far": (
        lambda d: raw(chain(with_value(-2e6))),
        "backbones.chains[0].coordinates",
        ("residue 3", "-2e+06"),
    ),
    "numbers of another length": (
        lambda d: raw(chain(positions(3).tobytes(), [1, 2])),
        "backbones.chains[0].residue_index",
        ("2 entries for 3",),
    ),
    "a sequence of another length": (
        lambda d: raw(chain(positions(3).tobytes(), sequence="AAAA")),
        "backbones.chains[0].sequence",
        ("4 entries for 3",),
    ),
}


def _waters(data: Path) -> bytes:
    lines = (data / "1a8o.pdb").read_text().splitlines()
    return "\n".join(line for line in lines if line[17:20] == "HOH").encode()


@pytest.mark.parametrize("name", CASES)
def test_invalid_argument(strict: rpc.TokenizerServiceStub, data: Path, name: str) -> None:
    request, field, words = CASES[name]
    with pytest.raises(grpc.RpcError) as caught:
        strict.Tokenize(request(data))
    error = caught.value
    assert isinstance(error, grpc.Call)
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    status = rpc_status.from_call(error)
    assert status is not None
    details = error_details_pb2.BadRequest()
    assert status.details[0].Unpack(details)
    (violation,) = details.field_violations
    assert violation.field == field
    for word in words:
        assert word in violation.description
    # The same over a stream, as a failure of this structure alone.
    good = raw(chain(positions(5).tobytes()))
    items = [pb.TokenizeStreamRequest(id=1, request=request(data)), pb.TokenizeStreamRequest(id=2, request=good)]
    answers = {answer.id: answer for answer in strict.TokenizeStream(iter(items))}
    assert answers[1].failure.violations[0].field == field
    assert len(answers[2].response.chains[0].tokens) == 5


def test_a_message_too_large(strict: rpc.TokenizerServiceStub) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        strict.Tokenize(file(b"x" * 3_100_000))
    assert isinstance(caught.value, grpc.Call)
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert len(strict.Tokenize(raw(chain(positions(5).tobytes()))).chains[0].tokens) == 5
