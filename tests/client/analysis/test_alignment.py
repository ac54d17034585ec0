"""Alignments are of the highest score there is; distances of codes are those of their vectors."""

import json
from pathlib import Path

import numpy as np
import pytest

from foldmint_client.analysis import alignment, code_distances
from foldmint_client.analysis.alignment import align
from foldmint_client.errors import InvalidOptions, UnreadableInput

DEFAULT = Path(__file__).parents[3] / "tokenizer/foldmint_tokenizer/default/codebooks/000001/codebook.safetensors"


def highest(scores: "np.typing.NDArray[np.integer]", gap: int) -> int:
    """The recurrence, cell by cell."""
    rows, columns = scores.shape
    best = [[-gap * (row + column) for column in range(columns + 1)] for row in range(rows + 1)]
    for row in range(rows):
        for column in range(columns):
            best[row + 1][column + 1] = max(
                best[row][column] + int(scores[row, column]),
                best[row][column + 1] - gap,
                best[row + 1][column] - gap,
            )
    return best[rows][columns]


@pytest.mark.parametrize("seed", range(40))
def test_the_highest_score_and_a_path_that_has_it(seed: int) -> None:
    random = np.random.default_rng(seed)
    rows, columns = random.integers(0, 12, 2)
    scores, gap = random.integers(-3, 4, (rows, columns)), int(random.integers(0, 3))
    found = align(scores, gap)
    assert found.score == highest(scores, gap)
    both = (found.first >= 0) & (found.second >= 0)
    assert scores[found.first[both], found.second[both]].sum() - gap * (~both).sum() == found.score
    assert found.first[found.first >= 0].tolist() == [*range(rows)]
    assert found.second[found.second >= 0].tolist() == [*range(columns)]
    assert not ((found.first < 0) & (found.second < 0)).any()


def test_what_cannot_be_aligned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alignment, "MOST_CELLS", 5)
    with pytest.raises(InvalidOptions, match="2 and 3 residues are too many"):
        align(np.zeros((2, 3), np.int8))
    with pytest.raises(InvalidOptions, match="a gap costs"):
        align(np.zeros((1, 1), np.int8), -1)


def test_distances_of_the_default_codebook() -> None:
    vectors = code_distances.read(DEFAULT)
    assert len(vectors) == 4096
    for one, other in ((0, 1), (5, 4095), (777, 777)):
        expected = np.linalg.norm(vectors.embeddings[one].astype(float) - vectors.embeddings[other])
        assert vectors.distances[one, other] == pytest.approx(expected, rel=1e-4)
    share = np.mean(vectors.distances[np.triu_indices(4096, 1)] <= vectors.near(0.01))
    assert share == pytest.approx(0.01, rel=1e-3)


def test_files_without_vectors(tmp_path: Path) -> None:
    path = tmp_path / "x"

    def header(**about: object) -> bytes:
        text = json.dumps({"embeddings": about}).encode()
        return len(text).to_bytes(8, "little") + text

    for content in (
        b"",
        b"\xff" * 20,
        (2).to_bytes(8, "little") + b"{}",
        header(dtype="F32", shape=[2, 2], data_offsets=[0, 12]) + bytes(12),
        header(dtype="F32", shape=[2, 2], data_offsets=[0, 16]) + bytes(3),
        header(dtype="I8", shape=[2, 2], data_offsets=[0, 4]) + bytes(4),
        header(dtype="F32", shape=[1, 1], data_offsets=[0, 4]) + b"\xff" * 4,
    ):
        path.write_bytes(content)
        with pytest.raises(UnreadableInput, match=str(path)):
            code_distances.read(path)
    with pytest.raises(UnreadableInput, match="No such file"):
        code_distances.read(tmp_path / "none")
