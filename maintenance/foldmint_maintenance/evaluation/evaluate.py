"""Evaluation of a model on a set of backbones: code usage, fidelity of fragments, and reconstruction."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from foldmint.usage import perplexity
from foldmint_maintenance.datasets.records import Record, gathered, prepared
from foldmint_maintenance.datasets.sampling import GROUP_RESIDUES, drawn_chains, grouped, sample_chains
from foldmint_maintenance.datasets.secondary_structure import lettered
from foldmint_maintenance.datasets.surroundings import surroundings
from foldmint_maintenance.errors import InvalidSet
from foldmint_maintenance.evaluation import fragment_metrics
from foldmint_maintenance.evaluation.assignments import (
    AssignmentFigures,
    Burial,
    Composing,
    NoiseStability,
    assignment_figures,
)
from foldmint_maintenance.evaluation.encoding import Encoded, ReportResidues, encoded, windows_of_codes
from foldmint_maintenance.evaluation.reconstruction import ChainFigures, Decoding, Reconstruction, Trace
from foldmint_tokenizer.detokenizer import StructureDetokenizer
from foldmint_tokenizer.engine import Engine
from foldmint_tokenizer.model import Model
from foldmint_tokenizer.motion.assignment import Assignment

_LETTERS = 128


@dataclass(frozen=True)
class EvaluationConfig:
    """batch: residues encoded at once. reference_residues: drawn from a reference set, by `seed`. chains: how many of
    the set are measured, drawn by `seed`; None for all. max_decode_residues: longer chains are not decoded.
    noise_chains: the set's first chains, on which `same_under_noise` is measured. group_residues: prepared together.
    """

    batch: int = 1024
    reference_residues: int = 400_000
    seed: int = 0
    chains: int | None = None
    max_decode_residues: int = 1024
    noise_chains: int = 100
    group_residues: int = GROUP_RESIDUES

    def __post_init__(self) -> None:
        if min(self.batch, self.reference_residues, self.group_residues) < 1:
            raise ValueError("batch, reference_residues and group_residues must be positive")
        if (self.chains is not None and self.chains < 1) or self.max_decode_residues < 1:
            raise ValueError("chains and max_decode_residues must be positive")


class Details(NamedTuple):
    """Data behind the figures: hits of each code (codes,), decoded chains, and traces of a sample of them."""

    counts: NDArray[np.int64]
    chains: list[ChainFigures]
    traces: list[Trace]


@dataclass(frozen=True)
class Evaluation:
    """Figures of a model on a set; None where unknown, with the reason in the notes.

    residues: those with a frame; codes_used_ratio and perplexity are over these. The RMSD of fragments, Å, after
    superposition, and the mutual information of code and DSSP letter, bits, are over residues with four neighbors on
    each side. backbone_rmsd_median, Å, lddt_ca_median and tm_score_median are over
    the decoded chains. quantization_distance_mean, quantization_squared_distance_mean: in the space of the codes'
    vectors.

    For models whose codes encode motions: anchored_rmsd_median and the figures of tracking are over the segments of the
    chains, as composed; assignments: these and more, by assignment and length. same_under_noise: share of tokens that
    Gaussian noise of so many Å on the coordinates leaves unchanged. mutual_information_burial_bits: with eight classes
    of the number of CA within 12 Å.
    """

    chains: int
    residues: int
    codes_used_ratio: float
    perplexity: float
    window_rmsd_mean: float | None
    window_rmsd_median: float | None
    mutual_information_bits: float | None
    backbone_rmsd_median: float | None
    lddt_ca_median: float | None
    tm_score_median: float | None
    tracking_rmsd_median: float | None
    tracking_lddt_ca_median: float | None
    tracking_tm_score_median: float | None
    anchored_rmsd_median: float | None
    same_under_noise: Mapping[str, float] | None
    mutual_information_burial_bits: float | None
    reconstruction: Reconstruction | None
    assignments: Mapping[str, AssignmentFigures] | None
    quantization_distance_mean: float
    quantization_squared_distance_mean: float
    model: str
    codebook_version: str
    notes: tuple[str, ...]
    details: Details | None = field(default=None, repr=False, compare=False)

    def as_json(self) -> dict[str, Any]:
        """For json.dumps: all but the details."""
        figures = asdict(replace(self, details=None)) | {"notes": list(self.notes)}
        del figures["details"]
        return figures


def evaluate(
    model: Model,
    data: Iterable[Record],
    reference: Iterable[Record] | None = None,
    config: EvaluationConfig = EvaluationConfig(),
    report: ReportResidues | None = None,
    report_decoded: ReportResidues | None = None,
) -> Evaluation:
    """Encode every residue of the data, decode the chains if the model has a decoder, and measure.

    The mean fragments of the codes are the model's own, from its training set, or those of about `reference_residues`
    of the reference. Raises `InvalidSet` if no residue of the data has a frame, `ModelError` if the model computes
    values that are not finite.
    """
    embeddings = model.codebook.codebook.embeddings
    frameless = Engine(model.encoder, embeddings.device).frameless_code(embeddings)
    notes: list[str] = []
    if config.chains is not None:
        data, total = sample_chains(data, config.chains, config.seed)
        if len(data) < total:
            notes.append(f"a sample of {len(data)} of {total} chains, drawn by the seed {config.seed}")
    table = _table(model, reference, config, report, notes)
    decoding = (
        None
        if model.decoder is None
        else Decoding(StructureDetokenizer(model), config.max_decode_residues, config.seed, report_decoded)
    )
    sums = _Sums(len(embeddings), table)
    composing = None if model.lever is None else Composing(model, config.max_decode_residues)
    stability, burial = NoiseStability(model, config.noise_chains, config.seed), Burial(len(embeddings))
    for group in grouped(_lettered(data, notes), config.group_residues):
        part = gathered(group)
        vectors = np.zeros((len(part.chain), model.config.out), np.float32)
        neighbors = surroundings(part).neighbors
        tokens = np.full(len(part.chain), frameless, np.int64)
        done = 0
        for rows in encoded(model.encoder, embeddings, part, np.arange(len(part)), config.batch):
            sums.add(rows)
            queries = part.shape.queries[done : done + len(rows.codes)]
            tokens[queries], vectors[queries] = rows.codes, rows.vectors
            burial.add(rows.codes, neighbors[queries])
            done += len(rows.codes)
            if report is not None:
                report(len(rows.codes))
        sums.chains += len(group)
        ends = np.cumsum([len(record.sequence) for record in group])[:-1]
        exists = np.split(part.shape.frames.exists, ends)
        split = (np.split(tokens, ends), exists, np.split(vectors, ends))
        for record, own, there, z in zip(group, *split, strict=True):
            if decoding is not None:
                decoding.add(record, own, there)
            if composing is not None:
                composing.add(record, gathered([record]), own, z)
            stability.add(record, own[there])
    residues = int(sums.counts.sum())
    if residues == 0:
        raise InvalidSet("the set holds no residue with N, CA and C")
    used = np.count_nonzero(sums.counts)
    notes.append(f"{used} of {len(sums.counts)} codes are used, on {residues} residues with a frame")
    return Evaluation(
        chains=sums.chains,
        residues=residues,
        codes_used_ratio=fragment_metrics.used_ratio(sums.counts),
        perplexity=perplexity(sums.counts),
        **_window_figures(sums.rmsd, notes),
        mutual_information_bits=_mutual_information(sums.joint, notes),
        **_reconstruction_figures(decoding, notes),
        **_assignment_figures(composing, decoding, notes),
        same_under_noise=stability.shares(),
        mutual_information_burial_bits=burial.bits(),
        quantization_distance_mean=sums.distance / residues,
        quantization_squared_distance_mean=sums.squared_distance / residues,
        model=model.name,
        codebook_version=model.codebook.version,
        notes=tuple(notes),
        details=Details(sums.counts, decoding.chains if decoding else [], decoding.traces if decoding else []),
    )


class _Sums:
    """Sums over encoded rows: hits (codes,), hits by code and letter, distances, and RMSD of fragments, Å."""

    def __init__(self, codes: int, table: NDArray[np.float32] | None) -> None:
        self.chains = 0
        self.counts = np.zeros(codes, np.int64)
        self.joint = np.zeros((codes, _LETTERS), np.int64)
        self.distance = self.squared_distance = 0.0
        self.rmsd: list[NDArray[np.float64]] = []
        self._table = table

    def add(self, rows: Encoded) -> None:
        self.counts += np.bincount(rows.codes, minlength=len(self.counts))
        self.distance += float(rows.distances.sum(dtype=np.float64))
        self.squared_distance += float(np.square(rows.distances, dtype=np.float64).sum())
        lettered = rows.whole & (rows.letters > 0)
        np.add.at(self.joint, (rows.codes[lettered], rows.letters[lettered]), 1)
        if self._table is not None:
            self.rmsd.append(
                fragment_metrics.window_rmsd(self._table, rows.codes[rows.whole], rows.windows[rows.whole])
            )


def _table(
    model: Model,
    reference: Iterable[Record] | None,
    config: EvaluationConfig,
    report: ReportResidues | None,
    notes: list[str],
) -> NDArray[np.float32] | None:
    """The mean fragment of each code (codes, 9, 3, 3), Å."""
    if reference is None:
        if model.codebook.windows is not None:
            stored: NDArray[np.float32] = model.codebook.windows.numpy()
            return stored
        notes.append("no window RMSD: the model has no windows of its codes; give a reference set")
        return None
    drawn = prepared(drawn_chains(reference, config.reference_residues, config.seed))
    notes.append(f"the codes' windows are means over {min(len(drawn), config.reference_residues)} reference residues")
    return windows_of_codes(
        model.encoder,
        model.codebook.codebook.embeddings,
        drawn,
        config.reference_residues,
        config.seed,
        config.batch,
        report,
    )


def _window_figures(rmsd: list[NDArray[np.float64]], notes: list[str]) -> dict[str, Any]:
    pooled = np.concatenate(rmsd) if rmsd else np.zeros(0)
    if rmsd:
        notes.append(f"{len(pooled)} residues have four neighbors on each side")
    known = len(pooled) > 0
    return {
        "window_rmsd_mean": float(pooled.mean()) if known else None,
        "window_rmsd_median": float(np.median(pooled)) if known else None,
    }


def _mutual_information(joint: NDArray[np.int64], notes: list[str]) -> float | None:
    if not joint.any():
        notes.append("no mutual information: the set has no DSSP letters")
        return None
    return fragment_metrics.mutual_information(joint)


def _lettered(data: Iterable[Record], notes: list[str]) -> Iterator[Record]:
    """The records with DSSP letters; pydssp assigns three kinds where the set has none."""
    noted = False
    for record in data:
        if record.dssp is None and not noted:
            notes.append("DSSP letters that the set lacks are pydssp's: H, E and C")
            noted = True
        yield from lettered([record])


def _assignment_figures(composing: Composing | None, decoding: Decoding | None, notes: list[str]) -> dict[str, Any]:
    if composing is None:
        notes.append("no figures of assignments: the model's codes do not encode motions")
        names = ("tracking_rmsd_median", "tracking_lddt_ca_median", "tracking_tm_score_median", "anchored_rmsd_median")
        return dict.fromkeys((*names, "assignments"))
    found = composing.figures()
    tracking, anchored = found[Assignment.TRACKING].all, found[Assignment.ANCHORED].all
    if decoding is not None:
        found = {str(Assignment.INDEPENDENT): assignment_figures(decoding.chains)} | found
    return {
        "tracking_rmsd_median": tracking.backbone_rmsd.median,
        "tracking_lddt_ca_median": tracking.lddt_ca.median,
        "tracking_tm_score_median": tracking.tm_score.median,
        "anchored_rmsd_median": anchored.backbone_rmsd.median,
        "assignments": found,
    }


def _reconstruction_figures(decoding: Decoding | None, notes: list[str]) -> dict[str, Any]:
    if decoding is None:
        notes.append("no reconstruction figures: the model has no decoder")
        return dict.fromkeys(("backbone_rmsd_median", "lddt_ca_median", "tm_score_median", "reconstruction"))
    notes.extend(decoding.notes())
    figures = decoding.figures()
    return {
        "backbone_rmsd_median": figures.all.backbone_rmsd.median,
        "lddt_ca_median": figures.all.lddt_ca.median,
        "tm_score_median": figures.all.tm_score.median,
        "reconstruction": figures,
    }
