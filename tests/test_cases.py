"""Files of other writers give the right residues, chains and tokens: in process, and from a server."""

import csv
import tarfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import pytest
from numpy.typing import NDArray

from foldmint_client import Client
from foldmint_tokenizer import StructureTokenizer
from helpers.support import ROOT, RunningServer

CASES = ROOT / "tests" / "cases"
with (CASES / "expected.tsv").open() as table:
    EXPECTED = {row["file"]: row for row in csv.DictReader(table, delimiter="\t")}
ARCHIVES = [name for name in EXPECTED if name.endswith(".tar")]
FILES = [name for name in EXPECTED if name not in ARCHIVES]


class Chain(Protocol):
    """What both a server's answer and the tokenizer's own have of a chain."""

    @property
    def chain(self) -> str: ...
    @property
    def sequence(self) -> str: ...
    @property
    def tokens(self) -> NDArray[np.integer]: ...
    @property
    def has_frame(self) -> NDArray[np.bool_]: ...


Tokenize = Callable[[Path | bytes], Sequence[Chain]]


@pytest.fixture(scope="module", params=["in process", "over gRPC"])
def tokenize(request: pytest.FixtureRequest, server: RunningServer) -> Iterator[Tokenize]:
    if request.param == "in process":
        yield StructureTokenizer.load().tokenize
        return
    with Client(server.address) as client:
        yield lambda structure: client.tokenize(structure, timeout=60).chains


@pytest.mark.parametrize("name", FILES)
def test_each_residue_of_a_file(name: str, tokenize: Tokenize) -> None:
    row = EXPECTED[name]
    chains = tokenize(CASES / name)
    assert sum(len(chain.has_frame) for chain in chains) == int(row["residues"])
    assert sum(int(np.sum(chain.has_frame)) for chain in chains) == int(row["with_frame"])
    if row["chains"]:
        assert " ".join(chain.chain for chain in chains) == row["chains"]
    if row["sequence"]:
        assert chains[0].sequence == row["sequence"]
    if row["reference_tokens"] == "yes":
        (reference,) = tokenize(CASES / "00_ref.pdb")
        np.testing.assert_array_equal(chains[0].tokens, reference.tokens)


def test_chains_that_only_the_segment_tells_apart(tokenize: Tokenize) -> None:
    told, named = tokenize(CASES / "07c_segid_contact.pdb"), tokenize(CASES / "07d_segid_contact_split_truth.pdb")
    for chain, other in zip(told, named, strict=True):
        np.testing.assert_array_equal(chain.tokens, other.tokens)


@pytest.mark.parametrize("name", ARCHIVES)
def test_each_member_of_an_archive(name: str, tokenize: Tokenize) -> None:
    with tarfile.open(CASES / name) as archive:
        contents = [file.read() for member in archive if (file := archive.extractfile(member)) is not None]
    residues = [len(chain.has_frame) for content in contents for chain in tokenize(content)]
    assert sum(residues) == int(EXPECTED[name]["residues"])
