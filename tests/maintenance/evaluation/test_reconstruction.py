"""Figures of decoded chains, with a decoder whose answers are known."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from foldmint_maintenance.datasets.records import Record
from foldmint_maintenance.evaluation.reconstruction import (
    ChainFigures,
    Decoding,
    bias,
    correlation,
    length_figures,
    quartiles,
)
from foldmint_maintenance.evaluation.structure_metrics import lddt_ca
from foldmint_tokenizer.detokenizer import DecodedChain, DecodedStructure, StructureDetokenizer
from foldmint_tokenizer.model import Model

TURN = Rotation.from_euler("xyz", [20, 40, 60], degrees=True).as_matrix()


class Answers(StructureDetokenizer):
    """Answers with backbones that were given, one a call."""

    def __init__(self, model: Model, answers: Sequence[DecodedStructure]) -> None:
        super().__init__(model)
        self._answers = iter(answers)

    def detokenize(self, tokens: object, **options: object) -> DecodedStructure:  # noqa: ARG002
        return next(self._answers)


def _answer(coordinates: NDArray[np.floating], plddt: float | NDArray[np.floating], ptm: float) -> DecodedStructure:
    confidence = np.broadcast_to(np.float32(plddt), len(coordinates)).copy()
    return DecodedStructure((DecodedChain(coordinates.astype(np.float32), confidence),), ptm)


def _added(decoding: Decoding, records: Sequence[Record]) -> Decoding:
    for record in records:
        exists = np.asarray(np.isfinite(record.coordinates).all((1, 2)))
        decoding.add(record, np.zeros(len(record.sequence), np.int64), exists)
    return decoding


def _chain(length: int, rmsd: float = 1.0, tm: float = 0.5, lddt: float = 0.5) -> ChainFigures:
    return ChainFigures(f"c{length}", length, length - 1, rmsd, tm, lddt, ptm=0.5)


def test_a_decoder_that_knows_the_truth(decoding_model: Model, records: list[Record]) -> None:
    """Residues without a frame do not count, wherever the decoder puts them."""
    answers = []
    for record in records:
        turned = np.nan_to_num(record.coordinates, nan=999) @ TURN + 8
        turned[~np.isfinite(record.coordinates).all((1, 2))] = -500
        answers.append(_answer(turned, 0.9, 0.7))
    decoding = _added(Decoding(Answers(decoding_model, answers), 1024), records)
    figures = decoding.figures()
    assert figures.all.backbone_rmsd.upper_quartile == pytest.approx(0, abs=1e-4)
    assert figures.all.tm_score.lower_quartile == pytest.approx(1)
    assert figures.all.lddt_ca.lower_quartile == 1
    assert (figures.all.chains, figures.all.residues) == (6, sum(range(30, 60, 5)) - 1)
    assert figures.confidence.plddt_bias == pytest.approx(-0.1)
    assert figures.confidence.ptm_bias == pytest.approx(-0.3)
    for trace in decoding.traces:
        assert trace.guess == pytest.approx(trace.truth, abs=1e-3)


def test_a_mirror_image_is_told_from_the_truth(decoding_model: Model, records: list[Record]) -> None:
    mirrored = records[0].coordinates * np.array([1, 1, -1])
    decoding = _added(Decoding(Answers(decoding_model, [_answer(mirrored, 0.9, 0.7)]), 1024), records[:1])
    (chain,) = decoding.chains
    assert chain.backbone_rmsd > 1
    assert chain.tm_score < 0.9
    assert chain.lddt_ca == 1


def test_confidence_is_compared_residue_by_residue(decoding_model: Model, records: list[Record]) -> None:
    truth = records[4].coordinates
    guess = truth + np.random.default_rng(0).normal(0, 2, truth.shape)
    lddt = lddt_ca(truth[:, 1], guess[:, 1].astype(np.float32)).residues
    assert np.ptp(lddt) > 0.1

    def told(plddt: NDArray[np.floating]) -> Decoding:
        return _added(Decoding(Answers(decoding_model, [_answer(guess, plddt, 0.5)]), 1024), records[4:5])

    honest = told(lddt + 0.05).figures().confidence
    assert honest.plddt_correlation == pytest.approx(1, abs=1e-6)
    assert honest.plddt_bias == pytest.approx(0.05, abs=1e-6)
    assert honest.ptm_correlation is None  # one chain
    reversed_ = told(1 - lddt).figures().confidence
    assert reversed_.plddt_correlation == pytest.approx(-1, abs=1e-6)


def test_chains_that_are_too_long_or_have_no_frame_are_left_out_and_told(
    decoding_model: Model, records: list[Record]
) -> None:
    empty = replace(records[0], coordinates=np.full_like(records[0].coordinates, np.nan))
    answers = [_answer(np.nan_to_num(record.coordinates), 0.5, 0.5) for record in records[:4]]
    seen: list[int] = []
    decoding = _added(Decoding(Answers(decoding_model, answers), 45, report=seen.append), [*records, empty])
    assert seen == [30, 35, 40, 45]
    assert decoding.figures().all.chains == 4
    assert decoding.figures().chains_left_out == 3
    notes = " ".join(decoding.notes())
    assert "2 chains of more than 45 residues" in notes
    assert "1 chains that have no residue with a frame" in notes


def test_nothing_decoded_has_no_figures(decoding_model: Model, records: list[Record]) -> None:
    figures = _added(Decoding(Answers(decoding_model, []), 10), records).figures()
    assert figures.all.backbone_rmsd.median is None
    assert figures.confidence.plddt_correlation is None
    assert figures.confidence.ptm_bias is None


def test_traces_are_of_fifty_chains_drawn_by_the_seed(decoding_model: Model, records: list[Record]) -> None:
    many = [replace(records[0], id=str(number)) for number in range(200)]

    def drawn(seed: int) -> list[str]:
        answers = [_answer(records[0].coordinates, 0.5, 0.5)] * 200
        traces = _added(Decoding(Answers(decoding_model, answers), 1024, seed), many).traces
        return [trace.figures.id for trace in traces]

    first = drawn(0)
    assert first == drawn(0) != drawn(1)
    assert len(set(first)) == 50
    # As many of the second half as of the first, about.
    assert 15 <= sum(int(name) >= 100 for name in first) <= 35


def test_buckets_hold_their_upper_bounds(decoding_model: Model) -> None:
    decoding = Decoding(StructureDetokenizer(decoding_model), 9999)
    decoding.chains.extend(_chain(length) for length in (1, 64, 65, 128, 129, 256, 257, 512, 513, 1024, 1025, 5000))
    figures = decoding.figures()
    assert [(part.longer_than, part.up_to, part.chains) for part in figures.buckets] == [
        *[(0, 64, 2), (64, 128, 2), (128, 256, 2), (256, 512, 2), (512, 1024, 2)],
        (1024, None, 2),
    ]
    assert (figures.up_to_256.chains, figures.up_to_256.residues) == (6, 1 + 64 + 65 + 128 + 129 + 256 - 6)
    assert (figures.all.chains, figures.all.longer_than, figures.all.up_to) == (12, 0, None)


def test_figures_of_a_range_are_of_its_chains_alone() -> None:
    chains = [_chain(10, rmsd, tm, lddt) for rmsd, tm, lddt in [(1, 0.1, 0.5), (2, 0.2, np.nan), (6, 0.9, 0.7)]]
    figures = length_figures([*chains, _chain(99, 50, 0, 0)], 0, 50)
    assert figures.backbone_rmsd.median == 2
    assert figures.tm_score.median == pytest.approx(0.2)
    assert figures.lddt_ca.median == pytest.approx(0.6)


def test_quartiles() -> None:
    of = quartiles([4.0, 1.0, np.nan, 2.0, 3.0, 5.0])
    assert (of.lower_quartile, of.median, of.upper_quartile) == (2, 3, 4)
    assert quartiles([np.nan]).median is None


def test_correlation_and_bias_by_hand() -> None:
    expected, true = np.array([1.0, 2, 3]), np.array([1.0, 3, 2])
    assert correlation(expected, true) == pytest.approx(0.5)
    assert bias(expected, true - 1) == pytest.approx(1)
    assert correlation(expected, np.ones(3)) is None
    assert correlation(expected[:1], true[:1]) is None
    assert bias(np.zeros(0), np.zeros(0)) is None
