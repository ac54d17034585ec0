"""Evaluation of a model, against the same figures put together by hand from one pass."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from foldmint.usage import perplexity
from foldmint_maintenance.datasets.records import PreparedSet, Record
from foldmint_maintenance.errors import InvalidSet
from foldmint_maintenance.evaluation import evaluate as evaluation
from foldmint_maintenance.evaluation import fragment_metrics, structure_metrics
from foldmint_maintenance.evaluation.encoding import windows_of_codes
from foldmint_maintenance.evaluation.evaluate import EvaluationConfig, evaluate
from foldmint_tokenizer.codebook import nearest_code
from foldmint_tokenizer.detokenizer import StructureDetokenizer
from foldmint_tokenizer.model import Model
from foldmint_tokenizer.store.model_store import create_store
from foldmint_tokenizer.structure.backbone import Backbone
from foldmint_tokenizer.tokenizer import StructureTokenizer


@pytest.fixture
def codes(model: Model, data: PreparedSet) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """The code of every residue, in one batch."""
    with torch.no_grad():
        z = model.encoder(*(torch.from_numpy(part) for part in data.rows(slice(None))))
    found: np.ndarray[tuple[int], np.dtype[np.int64]] = nearest_code(z, model.codebook.codebook.embeddings)[0].numpy()
    return found


def test_figures_are_those_of_one_pass(
    model: Model,
    data: PreparedSet,
    records: list[Record],
    codes: np.ndarray[tuple[int], np.dtype[np.int64]],
) -> None:
    seen: list[int] = []
    result = evaluate(model, records, records, EvaluationConfig(batch=32, group_residues=70), seen.append)

    counts = np.bincount(codes, minlength=16)
    windows, exists = data.windows(slice(None))
    whole = np.logical_and.reduce(exists, 1)
    assert 0 < whole.sum() < len(data)
    means = np.stack(
        [
            windows[whole & (codes == code)].mean(0)
            if (whole & (codes == code)).any()
            else np.zeros((9, 3, 3), np.float32)
            for code in range(16)
        ]
    )
    rmsd = fragment_metrics.superposed_rmsd(means[codes[whole]].reshape(-1, 27, 3), windows[whole].reshape(-1, 27, 3))
    joint = np.zeros((16, 128), int)
    for code, letter in zip(codes[whole], data.dssp[data.shape.queries][whole], strict=True):
        joint[code, letter] += 1

    assert (result.chains, result.residues) == (6, len(data))
    assert result.codes_used_ratio == np.count_nonzero(counts) / 16
    assert np.count_nonzero(counts) > 4
    assert result.perplexity == pytest.approx(perplexity(counts))
    assert result.window_rmsd_mean == pytest.approx(rmsd.mean(), abs=1e-4)
    assert result.window_rmsd_median == pytest.approx(np.median(rmsd), abs=1e-4)
    assert result.mutual_information_bits == pytest.approx(fragment_metrics.mutual_information(joint))
    assert result.quantization_distance_mean > 0
    # The mean of squares is no less than the square of the mean.
    assert result.quantization_squared_distance_mean > result.quantization_distance_mean**2
    assert (result.model, result.codebook_version) == ("tiny", "000001")
    assert sum(seen) == 2 * len(data)


def test_without_windows_motions_and_decoder_the_figures_are_null_with_reasons(
    model: Model, records: list[Record]
) -> None:
    result = evaluate(model, [replace(record, dssp=None) for record in records])
    figures = result.as_json()
    for name in (
        "window_rmsd_mean",
        "window_rmsd_median",
        "backbone_rmsd_median",
        "lddt_ca_median",
        "tm_score_median",
        "reconstruction",
        "tracking_rmsd_median",
        "anchored_rmsd_median",
        "assignments",
    ):
        assert figures[name] is None
    assert figures["mutual_information_bits"] > 0
    notes = " ".join(figures["notes"])
    assert "no window RMSD" in notes
    assert "DSSP letters that the set lacks are pydssp's" in notes
    assert "do not encode motions" in notes
    assert "no decoder" in notes


def test_stored_windows_serve_as_a_reference(
    model: Model, data: PreparedSet, records: list[Record], tmp_path: Path
) -> None:
    windows = windows_of_codes(model.encoder, model.codebook.codebook.embeddings, data)
    stored = create_store(
        tmp_path / "with-windows",
        name="tiny",
        encoder=model.encoder,
        codebook=model.codebook.codebook,
        windows=torch.from_numpy(windows),
        about={},
    )
    own, measured = evaluate(stored, records), evaluate(model, records, records)
    assert own.window_rmsd_mean == measured.window_rmsd_mean
    assert own.window_rmsd_mean is not None


def test_windows_are_drawn_by_the_seed(model: Model, data: PreparedSet) -> None:
    embeddings = model.codebook.codebook.embeddings
    first, again, other = (windows_of_codes(model.encoder, embeddings, data, 60, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert first.shape == (16, 9, 3, 3)
    assert not np.array_equal(first, other, equal_nan=True)


def test_residues_without_a_frame_are_no_hits(model: Model, records: list[Record]) -> None:
    broken = records[0].coordinates.copy()
    broken[3:7] = np.nan
    empty = replace(records[1], coordinates=np.full_like(records[1].coordinates, np.nan))
    result = evaluate(model, [replace(records[0], coordinates=broken), empty])
    assert (result.chains, result.residues) == (2, 26)
    with pytest.raises(InvalidSet, match="no residue"):
        evaluate(model, [empty])


def test_the_reconstruction_is_that_of_the_tokenizer_and_detokenizer_that_users_have(
    decoding_model: Model, records: list[Record]
) -> None:
    tokenizer, detokenizer = StructureTokenizer(decoding_model), StructureDetokenizer(decoding_model)
    rmsd, tm, lddt, each, plddt, ptm = [], [], [], [], [], []
    for record in records:
        (chain,) = tokenizer.tokenize(Backbone("A", record.sequence, record.residue_index, record.coordinates))
        decoded = detokenizer.detokenize(chain.tokens)
        truth, guess = record.coordinates[chain.has_frame], decoded.chains[0].coordinates[chain.has_frame]
        rmsd.append(structure_metrics.backbone_rmsd(truth, guess))
        tm.append(structure_metrics.tm_score(truth[:, 1], guess[:, 1]))
        scores = structure_metrics.lddt_ca(truth[:, 1], guess[:, 1])
        lddt.append(scores.chain)
        each.append(scores.residues)
        plddt.append(decoded.chains[0].plddt[chain.has_frame])
        ptm.append(decoded.ptm)
    encoded: list[int] = []
    lengths: list[int] = []
    config = EvaluationConfig(batch=32, group_residues=70)
    result = evaluate(decoding_model, records, None, config, encoded.append, lengths.append)

    assert result.backbone_rmsd_median == pytest.approx(np.median(rmsd), rel=1e-5)
    assert result.tm_score_median == pytest.approx(np.median(tm), rel=1e-5)
    assert result.lddt_ca_median == pytest.approx(np.median(lddt), rel=1e-5)
    assert result.reconstruction is not None
    assert result.reconstruction.buckets[0].backbone_rmsd.lower_quartile == pytest.approx(
        np.quantile(rmsd, 0.25), rel=1e-5
    )
    confidence = result.reconstruction.confidence
    assert confidence.plddt_correlation == pytest.approx(
        np.corrcoef(np.concatenate(plddt), np.concatenate(each))[0, 1], abs=1e-5
    )
    assert confidence.ptm_correlation == pytest.approx(np.corrcoef(ptm, tm)[0, 1], abs=1e-4)
    assert sum(encoded) == result.residues
    assert lengths == [len(record.sequence) for record in records]


def test_all_figures_of_a_model_with_a_decoder_are_finite(decoding_model: Model, records: list[Record]) -> None:
    figures = evaluate(decoding_model, records, records).as_json()
    assert "details" not in figures
    part = figures["reconstruction"]
    assert list(part) == ["chains_left_out", "all", "up_to_256", "buckets", "confidence"]
    assert [bucket["up_to"] for bucket in part["buckets"]] == [64, 128, 256, 512, 1024, None]
    numbers = [
        *(figures[name] for name in ("backbone_rmsd_median", "lddt_ca_median", "tm_score_median")),
        *(
            part[chains][measure][quartile]
            for chains in ("all", "up_to_256")
            for measure in ("backbone_rmsd", "tm_score", "lddt_ca")
            for quartile in ("lower_quartile", "median", "upper_quartile")
        ),
        *part["confidence"].values(),
    ]
    assert np.isfinite(numbers).all()
    assert part["buckets"][1]["backbone_rmsd"] == dict.fromkeys(("lower_quartile", "median", "upper_quartile"))
    json.dumps(figures, allow_nan=False)


def test_long_chains_are_encoded_but_not_decoded(decoding_model: Model, records: list[Record]) -> None:
    result = evaluate(decoding_model, records, config=EvaluationConfig(max_decode_residues=40))
    assert result.chains == 6
    assert result.reconstruction is not None
    assert result.reconstruction.all.chains == 3
    assert "not decoded: 3 chains of more than 40 residues" in result.notes


def test_a_sample_of_chains_is_drawn_by_the_seed(model: Model, records: list[Record]) -> None:
    def measured(seed: int, chains: int = 3) -> evaluation.Evaluation:
        return evaluate(model, records, config=EvaluationConfig(chains=chains, seed=seed))

    first = measured(0)
    assert first == measured(0)
    assert first.chains == 3
    assert "a sample of 3 of 6 chains, drawn by the seed 0" in first.notes
    assert len({measured(seed).residues for seed in range(6)}) > 1
    everything = measured(0, 6)
    assert everything.chains == 6
    assert "sample" not in " ".join(everything.notes)


@pytest.mark.parametrize("wrong", [{"chains": 0}, {"max_decode_residues": 0}, {"batch": 0}, {"reference_residues": 0}])
def test_settings_that_mean_nothing_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must be positive"):
        EvaluationConfig(**wrong)
