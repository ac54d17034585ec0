"""Assignments through the server: the same as in process, unary and streamed, from files and coordinates; and back."""

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from foldmint_client import Backbone, Client, FailedPrecondition, InvalidOptions
from foldmint_client.cli.main import app
from foldmint_client.io.token_readers import read
from foldmint_client.models.responses import ChainTokens, Tokens
from foldmint_maintenance.datasets.records import Record
from foldmint_maintenance.evaluation.structure_metrics import backbone_rmsd
from foldmint_tokenizer import StructureTokenizer
from foldmint_tokenizer import backbone as core_backbone
from helpers.support import RunningServer

ASSIGNMENTS = ("independent", "anchored", "tracking")


@pytest.fixture(scope="module")
def some(chains: list[Record]) -> list[Backbone]:
    """Chains, the first with a gap of seven residues."""
    found = [c for c in chains if np.isfinite(c.coordinates).all() and 60 < len(c.sequence) < 200][:4]
    backbones = [Backbone(c.coordinates, c.residue_index, c.id, c.sequence) for c in found]
    kept = np.r_[0:30, 37 : len(found[0].sequence)]
    sequence = "".join(found[0].sequence[place] for place in kept)
    gapped = Backbone(found[0].coordinates[kept], found[0].residue_index[kept], "gap", sequence)
    return [gapped, *backbones]


@pytest.fixture(scope="module")
def client(server: RunningServer) -> Client:
    return Client(server.address)


def starts_of(chain: ChainTokens) -> list[int]:
    assert chain.segment_starts is not None
    return [int(start) for start in chain.segment_starts]


@pytest.mark.parametrize("assignment", ASSIGNMENTS)
def test_unary_stream_and_process_agree(client: Client, some: list[Backbone], assignment: str) -> None:
    core = StructureTokenizer.load()
    many = client.tokenize_many(list(some), assignment=assignment, first_frames=True)  # type: ignore[call-overload]
    streamed = dict(many)
    for place, chain in enumerate(some):
        one = client.tokenize(chain, assignment=assignment, first_frames=True).chains[0]  # type: ignore[arg-type]
        other = streamed[place]
        assert isinstance(other, Tokens)
        (own,) = core.tokenize(
            core_backbone(chain.coordinates, chain.residue_index, chain=chain.chain),
            assignment=assignment,  # type: ignore[arg-type]
            first_frames=True,
        )
        assert one.assignment == other.chains[0].assignment == assignment
        np.testing.assert_array_equal(one.tokens, other.chains[0].tokens)
        np.testing.assert_array_equal(one.tokens, own.tokens)
        np.testing.assert_array_equal(one.segment_starts, own.segment_starts)
        np.testing.assert_allclose(one.first_frames, own.first_frames, atol=1e-5)  # type: ignore[arg-type]
        assert (one.composed_rmsd is None) == (assignment == "independent")
        if own.composed_rmsd is not None:
            assert one.composed_rmsd == pytest.approx(own.composed_rmsd, rel=1e-5)


@pytest.mark.parametrize("assignment", ASSIGNMENTS)
def test_there_and_back(client: Client, some: list[Backbone], assignment: str) -> None:
    for chain in some:
        tokens = client.tokenize(chain, assignment=assignment, first_frames=True)  # type: ignore[arg-type]
        (decoded,) = client.detokenize(tokens).chains
        assert decoded.placed.all()
        starts = starts_of(tokens.chains[0])
        # Where the structure had them: nothing is superposed.
        np.testing.assert_allclose(decoded.coordinates[starts, 1], chain.coordinates[starts, 1], atol=1e-2)
        if assignment == "tracking":
            for start, stop in zip(starts, [*starts[1:], len(chain.coordinates)], strict=True):
                assert backbone_rmsd(chain.coordinates[start:stop], decoded.coordinates[start:stop]) < 2


def test_a_gap_begins_anew_by_its_numbers_alone(client: Client, some: list[Backbone]) -> None:
    tokens = client.tokenize(some[0]).chains[0]
    bare = ChainTokens(
        tokens.chain,
        tokens.sequence,
        tokens.residue_index,
        tokens.insertion_codes,
        tokens.tokens,
        tokens.has_frame,
        None,
    )
    (decoded,) = client.detokenize(bare).chains
    assert decoded.segment_starts.tolist() == [0, 30]
    assert decoded.placed.tolist() == [True, False]


@pytest.mark.parametrize("options", [{"assignment": "tracking"}, {"first_frames": True}])
def test_a_model_without_motions_refuses(
    decoding_server: RunningServer, some: list[Backbone], options: dict[str, object]
) -> None:
    with Client(decoding_server.address) as plain:
        assert plain.model().lever is None
        with pytest.raises(FailedPrecondition, match="do not encode motions"):
            plain.tokenize(some[0], **options)  # type: ignore[arg-type]
        assert plain.tokenize(some[0]).chains[0].assignment is None


def test_tokens_that_were_assigned_are_not_for_a_model_without_motions(
    decoding_server: RunningServer, client: Client, some: list[Backbone]
) -> None:
    tokens = client.tokenize(some[1], assignment="tracking").chains[0]
    with Client(decoding_server.address) as plain, pytest.raises(FailedPrecondition, match="do not encode motions"):
        plain.detokenize(tokens)


def test_an_unknown_assignment_is_refused(client: Client, some: list[Backbone]) -> None:
    with pytest.raises(InvalidOptions, match="assignment"):
        client.tokenize(some[0], assignment="nearest")  # type: ignore[arg-type]


@pytest.mark.parametrize("form", ["jsonl", "parquet", "npz"])
def test_files_remember_how_tokens_were_chosen(
    server: RunningServer, client: Client, data: Path, tmp_path: Path, form: str
) -> None:
    path, out = tmp_path / f"tokens.{form}", tmp_path / "out.jsonl"
    source = str(data / "1a8o.cif")
    common = ["--server", server.address, "--quiet"]
    asked = ["tokenize", *common, "--format", form, "-o", str(path), "--assignment", "tracking", "--first-frames"]
    result = CliRunner().invoke(app, [*asked, source])
    assert result.exit_code == 0, result.output
    (found,) = read(str(path))
    assert isinstance(found.tokens, Tokens)
    (chain,) = found.tokens.chains
    expected = client.tokenize(source, assignment="tracking", first_frames=True).chains[0]
    assert chain.assignment == "tracking"
    np.testing.assert_array_equal(chain.tokens, expected.tokens)
    np.testing.assert_allclose(chain.first_frames, expected.first_frames, atol=1e-5)  # type: ignore[arg-type]
    result = CliRunner().invoke(app, ["detokenize", *common, "--format", "jsonl", "-o", str(out), str(path)])
    assert result.exit_code == 0, result.output
    decoded = json.loads(out.read_text())["chains"][0]
    atoms = np.array(decoded["coordinates"])
    direct = client.detokenize(expected).chains[0]
    np.testing.assert_allclose(atoms, direct.coordinates, atol=2e-3)
