"""Anchored and tracking tokens rebuild the chain, say how well, and are the same however the structure comes."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from foldmint_maintenance.datasets.records import Record
from foldmint_maintenance.evaluation.structure_metrics import backbone_rmsd
from foldmint_tokenizer import (
    Assignment,
    Backbone,
    InvalidStructure,
    ModelError,
    StructureDetokenizer,
    StructureTokenizer,
    TokenizedChain,
)
from foldmint_tokenizer.frames import Frames, backbone_frames
from foldmint_tokenizer.motion.assignment import BEAM_WIDTH, CodeTable, anchors, assign, chain_segments
from foldmint_tokenizer.motion.motions import Segments, checked_segments, numbered_segments
from foldmint_tokenizer.store.model_store import load_model

ASSIGNED = [Assignment.ANCHORED, Assignment.TRACKING]


@pytest.fixture(scope="module")
def tokenizer() -> StructureTokenizer:
    return StructureTokenizer.load()


@pytest.fixture(scope="module")
def detokenizer() -> StructureDetokenizer:
    return StructureDetokenizer.load()


@pytest.fixture(scope="module")
def some(chains: list[Record]) -> list[Backbone]:
    whole = [chain for chain in chains if np.isfinite(chain.coordinates).all() and 60 < len(chain.sequence) < 300]
    return [backbone_of(chain, chain.coordinates) for chain in whole[:6]]


def backbone_of(chain: Record, coordinates: NDArray[np.float32]) -> Backbone:
    return Backbone(chain.id, chain.sequence, chain.residue_index, coordinates)


def segments_of(chain: TokenizedChain) -> Segments:
    assert chain.segment_starts is not None
    return checked_segments(chain.segment_starts, chain.first_frames, len(chain.tokens))


def turned(coordinates: NDArray[np.float32]) -> NDArray[np.float32]:
    """Turned and moved, in float64 until the end."""
    rotation, _ = np.linalg.qr(np.random.default_rng(5).normal(size=(3, 3)))
    rotation[:, 0] *= np.sign(np.linalg.det(rotation))
    moved = coordinates.astype(np.float64) @ rotation.T + np.array([11.0, -7.0, 3.0])
    return np.asarray(moved, np.float32)


def test_the_more_a_token_knows_the_nearer_the_chain_comes(
    tokenizer: StructureTokenizer, detokenizer: StructureDetokenizer, some: list[Backbone]
) -> None:
    found: dict[Assignment, list[float]] = {}
    for assignment in Assignment:
        for chain in some:
            (made,) = tokenizer.tokenize(chain, assignment=assignment)
            decoded = detokenizer.detokenize(made.tokens, assignment=assignment, segments=[segments_of(made)])
            if made.segment_starts is not None and len(made.segment_starts) == 1:
                error = backbone_rmsd(chain.coordinates, decoded.chains[0].coordinates)
                found.setdefault(assignment, []).append(error)
    independent, anchored, tracking = (np.median(found[assignment]) for assignment in Assignment)
    assert tracking < anchored < independent
    assert tracking < 1.5
    assert max(found[Assignment.TRACKING]) < 2.0


@pytest.mark.parametrize("assignment", ASSIGNED)
def test_what_composition_reaches_is_told(
    tokenizer: StructureTokenizer,
    detokenizer: StructureDetokenizer,
    some: list[Backbone],
    assignment: Assignment,
) -> None:
    for chain in some:
        (made,) = tokenizer.tokenize(chain, assignment=assignment)
        assert made.assignment is assignment
        assert made.segment_starts is not None
        decoded = detokenizer.detokenize(made.tokens, assignment=assignment, segments=[segments_of(made)])
        atoms = decoded.chains[0].coordinates
        starts = [*made.segment_starts, len(chain)]
        # The tokenizer compares with residues of mean geometry, as the decoder's are: 0.05 Å is what that hides.
        square = [
            (stop - start) * backbone_rmsd(chain.coordinates[start:stop], atoms[start:stop]) ** 2
            for start, stop in pairwise(starts)
        ]
        assert made.composed_rmsd == pytest.approx(np.sqrt(sum(square) / len(chain)), abs=0.05)


@pytest.mark.parametrize("assignment", ASSIGNED)
def test_turning_the_structure_changes_nothing(
    tokenizer: StructureTokenizer, some: list[Backbone], assignment: Assignment
) -> None:
    same = []
    for chain in some:
        (one,) = tokenizer.tokenize(chain, assignment=assignment)
        (other,) = tokenizer.tokenize(replace(chain, coordinates=turned(chain.coordinates)), assignment=assignment)
        assert other.composed_rmsd == pytest.approx(one.composed_rmsd, abs=0.15)
        same.append(np.mean(one.tokens == other.tokens))
    # Rounding to float32 may tip the scales between two codes, and tracking remembers it.
    assert np.mean(same) > 0.9


@pytest.mark.parametrize("assignment", ASSIGNED)
def test_company_changes_nothing(tokenizer: StructureTokenizer, some: list[Backbone], assignment: Assignment) -> None:
    together = tokenizer.tokenize(some, assignment=assignment)
    for chain, made in zip(some, together, strict=True):
        (alone,) = tokenizer.tokenize(chain, assignment=assignment)
        np.testing.assert_array_equal(made.tokens, alone.tokens)
        assert made.composed_rmsd == alone.composed_rmsd


def test_anchored_tokens_depend_on_their_stretch_alone(tokenizer: StructureTokenizer, some: list[Backbone]) -> None:
    """Moving the end of a chain leaves the tokens of its beginning, up to where neighborhoods and anchors reach."""
    for chain in some[:3]:
        moved = chain.coordinates.copy()
        moved[-1] += np.float32(0.4)
        frames = backbone_frames(chain.coordinates)
        far = np.linalg.norm(frames.origin - frames.origin[-1], axis=1) > 20
        _, segments = chain_segments(frames, chain.residue_index, chain.coordinates)
        last = np.flatnonzero(anchors(frames, segments)[: len(chain) - 24])[-1]
        (one,) = tokenizer.tokenize(chain, assignment=Assignment.ANCHORED)
        (other,) = tokenizer.tokenize(replace(chain, coordinates=moved), assignment=Assignment.ANCHORED)
        kept = far & (np.arange(len(chain)) < last)
        assert kept.sum() > 10
        # A residue of whose neighborhood the end is part may take another code, and its stretch goes on from there.
        assert np.mean(one.tokens[kept] == other.tokens[kept]) > 0.9


def test_distances_are_to_the_codes_that_were_assigned(tokenizer: StructureTokenizer, some: list[Backbone]) -> None:
    (own,) = tokenizer.tokenize(some[0], distances=True)
    (tracked,) = tokenizer.tokenize(some[0], distances=True, assignment=Assignment.TRACKING)
    assert own.distances is not None
    assert tracked.distances is not None
    differ = own.tokens != tracked.tokens
    assert differ.any()
    assert (tracked.distances[differ] >= own.distances[differ]).all()
    np.testing.assert_allclose(tracked.distances[~differ], own.distances[~differ], rtol=1e-5)


def gapped(chain: Backbone, at: int, missing: int) -> Backbone:
    """Without some residues, whose numbers are missing too."""
    kept = np.r_[0:at, at + missing : len(chain)]
    sequence = "".join(chain.sequence[place] for place in kept)
    return Backbone(chain.chain, sequence, chain.residue_index[kept], chain.coordinates[kept])


@pytest.mark.parametrize("assignment", list(Assignment))
def test_segments_stand_where_their_first_frames_say(
    tokenizer: StructureTokenizer,
    detokenizer: StructureDetokenizer,
    some: list[Backbone],
    assignment: Assignment,
) -> None:
    chain = gapped(some[0], 30, 7)
    (made,) = tokenizer.tokenize(chain, assignment=assignment, first_frames=True)
    segments = segments_of(made)
    assert 30 in segments.starts
    assert np.isfinite(segments.frames).all()
    (decoded,) = detokenizer.detokenize(made.tokens, assignment=assignment, segments=[segments]).chains
    assert decoded.placed.all()
    np.testing.assert_array_equal(decoded.segment_starts, segments.starts)
    # In the structure's own frame: not superposed.
    np.testing.assert_allclose(
        decoded.coordinates[segments.starts, 1], chain.coordinates[segments.starts, 1], atol=1e-3
    )
    bare = segments._replace(frames=np.full_like(segments.frames, np.nan))
    (unplaced,) = detokenizer.detokenize(made.tokens, assignment=assignment, segments=[bare]).chains
    assert unplaced.placed.tolist() == [True] + [False] * (len(segments.starts) - 1)


def test_numbers_tell_of_gaps() -> None:
    assert numbered_segments([1, 2, 2, 3, 7, 8, 5, 6]).starts.tolist() == [0, 4, 6]
    assert numbered_segments([4]).starts.tolist() == [0]


@pytest.mark.parametrize(
    ("starts", "frames", "field"),
    [
        ([1], None, "segment_starts"),
        ([0, 3, 3], None, "segment_starts"),
        ([0, 9], None, "segment_starts"),
        ([], None, "segment_starts"),
        ([0, 2], np.zeros((1, 12)), "first_frames"),
        ([0], np.zeros((1, 12)), "first_frames"),
        ([0], np.full((1, 12), np.inf), "first_frames"),
    ],
)
def test_segments_that_fit_nothing_are_refused(
    starts: list[int], frames: NDArray[np.float64] | None, field: str
) -> None:
    with pytest.raises(InvalidStructure) as caught:
        checked_segments(starts, frames, 9)
    assert caught.value.field == field


def test_a_stretch_without_frames_is_a_segment_of_its_own(tokenizer: StructureTokenizer, some: list[Backbone]) -> None:
    coordinates = some[0].coordinates.copy()
    coordinates[20:23, 2] = np.nan
    (made,) = tokenizer.tokenize(
        replace(some[0], coordinates=coordinates), assignment=Assignment.TRACKING, first_frames=True
    )
    assert made.segment_starts is not None
    assert made.first_frames is not None
    assert {20, 23} <= set(made.segment_starts.tolist())
    assert {21, 22}.isdisjoint(made.segment_starts.tolist())
    assert np.isnan(made.first_frames[made.segment_starts.tolist().index(20)]).all()
    assert made.composed_rmsd is not None
    assert made.composed_rmsd < 2


def test_a_chain_without_frames_has_nothing_to_compose(tokenizer: StructureTokenizer, some: list[Backbone]) -> None:
    (made,) = tokenizer.tokenize(
        replace(some[0], coordinates=np.full_like(some[0].coordinates, np.nan)), assignment=Assignment.TRACKING
    )
    assert made.composed_rmsd is None
    assert len(set(made.tokens.tolist())) == 1


@pytest.mark.parametrize(
    "options", [{"assignment": Assignment.TRACKING}, {"assignment": Assignment.ANCHORED}, {"first_frames": True}]
)
def test_models_without_motions_refuse(
    decoding_store: Path, some: list[Backbone], options: dict[str, Assignment | bool]
) -> None:
    with pytest.raises(ModelError, match="do not encode motions"):
        StructureTokenizer.load(decoding_store).tokenize(some[0], **options)  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="do not encode motions"):
        StructureDetokenizer.load(decoding_store).detokenize([1, 2], assignment=Assignment.TRACKING)


def test_embedded_models_have_names(some: list[Backbone]) -> None:
    assert load_model().name == load_model("foldmint").name == "foldmint"
    geometry = load_model("geometry")
    assert geometry.name == "foldmint-geometry"
    assert geometry.config.out == 12
    finer, coarser = (
        StructureTokenizer(model).tokenize(some, assignment=Assignment.TRACKING) for model in (geometry, load_model())
    )
    for one, other in zip(finer, coarser, strict=True):
        assert one.composed_rmsd is not None
        assert other.composed_rmsd is not None
        assert one.composed_rmsd < other.composed_rmsd
        assert one.composed_rmsd < 1


def vectors_of(table: CodeTable) -> NDArray[np.float32]:
    """The codes' vectors (codes, dims), in their order."""
    vectors = np.zeros((len(table.rotation), table.leaves.shape[1]), np.float32)
    vectors[table.members.ravel()] = table.leaves.transpose(0, 2, 1).reshape(-1, table.leaves.shape[1])
    return vectors


def squared_errors(table: CodeTable, frames: Frames, codes: NDArray[np.int64], around: NDArray[np.float32]) -> float:
    """The sum, Å², over a chain of one segment, of what separates each reached frame and environment from the true."""
    rotation, origin = np.eye(3), np.zeros(3)
    first, place = frames.rotation[0].astype(np.float64), frames.origin[0].astype(np.float64)
    vectors = vectors_of(table)
    total = 0.0
    for j, code in enumerate(codes[:-1]):
        true_rotation = first.T @ frames.rotation[j + 1]
        true_origin = first.T @ (frames.origin[j + 1] - place)
        wanted = [(rotation.T @ true_rotation).ravel() * table.lever, rotation.T @ (true_origin - origin), around[j]]
        total += float(np.square(np.concatenate(wanted) - vectors[code][: 12 + around.shape[1]]).sum())
        origin = origin + rotation @ table.translation[code]
        rotation = rotation @ table.rotation[code]
    return total


def searched_plainly(table: CodeTable, frames: Frames, around: NDArray[np.float32], width: int) -> NDArray[np.int64]:
    """A beam search that compares with every code, for a chain of one segment."""
    vectors = vectors_of(table)
    hypotheses: list[tuple[float, list[int], NDArray[np.float64], NDArray[np.float64]]] = [
        (0.0, [], np.eye(3), np.zeros(3))
    ]
    for j in range(len(frames.origin) - 1):
        back = frames.rotation[j].astype(np.float64).T
        turn, move = back @ frames.rotation[j + 1], back @ (frames.origin[j + 1] - frames.origin[j])
        candidates = []
        for h, (cost, _, at, place) in enumerate(hypotheses):
            to, by = at @ turn, place + at @ move
            wanted = np.concatenate([to.ravel() * table.lever, by, around[j]])
            costs = cost + np.square(vectors[:, : len(wanted)] - wanted).sum(1)
            candidates += [(costs[code], h, int(code), to, by) for code in np.argsort(costs)[:width]]
        candidates.sort(key=lambda candidate: candidate[0])
        hypotheses = [
            (
                cost,
                [*hypotheses[h][1], code],
                table.rotation[code].T @ to,
                table.rotation[code].T @ (by - table.translation[code]),
            )
            for cost, h, code, to, by in candidates[:width]
        ]
    return np.array(hypotheses[0][1])


def test_the_search_finds_what_comparing_with_every_code_does(some: list[Backbone]) -> None:
    model = load_model()
    assert model.lever is not None
    table = CodeTable.of(model.codebook.codebook.embeddings, model.lever)
    chain = some[1]
    frames = backbone_frames(chain.coordinates)
    around = np.zeros((len(chain), model.config.out - 12), np.float32)
    goes_on, segments = chain_segments(frames, chain.residue_index, chain.coordinates)
    assert len(segments.starts) == 1
    none = np.zeros(len(chain), np.int64)
    own = assign(table, Assignment.TRACKING, frames, goes_on, segments, none, around)
    plain = searched_plainly(table, frames, around, BEAM_WIDTH)
    greedy = searched_plainly(table, frames, around, 1)
    errors = [squared_errors(table, frames, np.append(codes, 0), around) for codes in (own.codes[:-1], plain, greedy)]
    assert errors[0] == pytest.approx(errors[1], rel=1e-4)
    assert errors[0] < 0.7 * errors[2]


def test_codebooks_of_any_size_are_searched(some: list[Backbone]) -> None:
    """Leaves of the tree that are not full, and fewer codes than hypotheses."""
    chain = some[0]
    frames = backbone_frames(chain.coordinates)
    goes_on, segments = chain_segments(frames, chain.residue_index, chain.coordinates)
    model = load_model("geometry")
    assert model.lever is not None
    none = np.zeros(len(frames.origin), np.int64)
    reached = []
    for codes in (1, 5, 131, 1000):
        table = CodeTable.of(model.codebook.codebook.embeddings[:codes], model.lever)
        own = assign(table, Assignment.TRACKING, frames, goes_on, segments, none, np.zeros((len(none), 0), np.float32))
        assert own.codes.max() < codes
        reached.append(own.composed_rmsd)
    assert all(a is not None and b is not None and a > b for a, b in pairwise(reached))
