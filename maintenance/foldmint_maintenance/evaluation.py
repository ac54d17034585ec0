"""Evaluation of a model on a set of backbones: how its codes are used, and how much of the local shape they keep."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from foldmint_maintenance import fidelity
from foldmint_maintenance.corpus import PreparedSet, Record, gathered, prepared
from foldmint_maintenance.errors import InvalidSet
from foldmint_tokenizer.codebook import nearest_code
from foldmint_tokenizer.encoder import Encoder
from foldmint_tokenizer.store import Model

# Residues prepared together: enough to fill batches, little enough that a set of any size fits.
_PART = 16_384
_LETTERS = 128

Watch = Callable[[int], None]
"""Told how many residues have been encoded since it was last called."""


@dataclass(frozen=True)
class EvaluationConfig:
    """batch: residues encoded at once. reference_residues: drawn from a reference set, by `seed`."""

    batch: int = 1024
    reference_residues: int = 400_000
    seed: int = 0

    def __post_init__(self) -> None:
        if self.batch < 1 or self.reference_residues < 1:
            raise ValueError("batch and reference_residues must be positive")


@dataclass(frozen=True)
class Evaluation:
    """What a model does on a set; None where it cannot be told, with the reason in the notes.

    residues: those with a frame; the others have no code of their own. codes_used_ratio and perplexity are over these.
    The windows' RMSD, Å, after superposition, and the mutual information of code and DSSP letter, bits, are over the
    residues that have four neighbors on each side. quantization_distance_mean: in the space of the code's vectors.
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
    quantization_distance_mean: float
    model: str
    codebook_version: str
    notes: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """For json.dumps."""
        return asdict(self) | {"notes": list(self.notes)}


class Encoded(NamedTuple):
    """Residues with a frame: codes (rows,) int64, distances (rows,) float32, windows (rows, 9, 3, 3), Å, whole (rows,):
    whether all nine residues are there, letters (rows,) uint8 of DSSP, 0 where not known.
    """

    codes: NDArray[np.int64]
    distances: NDArray[np.float32]
    windows: NDArray[np.float32]
    whole: NDArray[np.bool_]
    letters: NDArray[np.uint8]


def encoded(
    encoder: Encoder, embeddings: Tensor, data: PreparedSet, select: NDArray[np.integer], batch: int
) -> Iterator[Encoded]:
    """The rows `select` of a set, a batch at a time, in float32. embeddings: (codes, out)."""
    for start in range(0, len(select), batch):
        some = select[start : start + batch]
        rows = data.rows(some)
        with torch.inference_mode():
            z = encoder(*(torch.from_numpy(part) for part in rows))
            codes, distances = nearest_code(z, embeddings)
        windows = data.windows(some)
        yield Encoded(
            codes.numpy(),
            distances.numpy(),
            windows.positions,
            np.logical_and.reduce(windows.exists, 1),
            data.dssp[data.shape.queries[some]],
        )


def windows_of_codes(
    encoder: Encoder,
    embeddings: Tensor,
    data: PreparedSet,
    residues: int = 400_000,
    seed: int = 0,
    batch: int = 1024,
    watch: Watch | None = None,
) -> NDArray[np.float32]:
    """The mean backbone window of each code (codes, 9, 3, 3), Å, over residues drawn at random; NaN for codes not hit.

    embeddings: (codes, out). residues: how many are drawn, each at most once; only those with a whole window count.
    """
    count = min(residues, len(data))
    drawn = np.sort(np.random.default_rng(seed).choice(len(data), count, replace=False))
    means = fidelity.WindowMeans(len(embeddings))
    for part in encoded(encoder, embeddings, data, drawn, batch):
        means.add(part.windows[part.whole], part.codes[part.whole])
        if watch is not None:
            watch(len(part.codes))
    return means.windows()


def drawn_chains(records: Iterable[Record], residues: int, seed: int) -> list[Record]:
    """Chains in random order, as many as it takes for `residues`, or all."""
    everything = list(records)
    drawn: list[Record] = []
    for index in np.random.default_rng(seed).permutation(len(everything)):
        if residues <= 0:
            break
        drawn.append(everything[index])
        residues -= len(everything[index].sequence)
    return drawn


def evaluate(
    model: Model,
    data: Iterable[Record],
    reference: Iterable[Record] | None = None,
    config: EvaluationConfig = EvaluationConfig(),
    watch: Watch | None = None,
) -> Evaluation:
    """Encode every residue of the data and measure.

    The windows that the codes stand for are the model's own, means over its training set, or means over about
    `reference_residues` of the reference. Raises InvalidSet if no residue of the data has a frame.
    """
    encoder, embeddings = model.encoder, model.codebook.codebook.embeddings
    notes: list[str] = []
    table = _table(model, reference, config, watch, notes)
    counts = np.zeros(len(embeddings), np.int64)
    joint = np.zeros((len(embeddings), _LETTERS), np.int64)
    rmsd: list[NDArray[np.float64]] = []
    distance, chains = 0.0, 0
    for group in _groups(data):
        part = gathered(group)
        chains += len(group)
        for rows in encoded(encoder, embeddings, part, np.arange(len(part)), config.batch):
            if watch is not None:
                watch(len(rows.codes))
            counts += np.bincount(rows.codes, minlength=len(counts))
            distance += float(rows.distances.sum(dtype=np.float64))
            lettered = rows.whole & (rows.letters > 0)
            np.add.at(joint, (rows.codes[lettered], rows.letters[lettered]), 1)
            if table is not None:
                rmsd.append(fidelity.window_rmsd(table, rows.codes[rows.whole], rows.windows[rows.whole]))
    residues = int(counts.sum())
    if residues == 0:
        raise InvalidSet("the set holds no residue with N, CA and C")
    notes.append(f"{np.count_nonzero(counts)} of {len(counts)} codes are used, on {residues} residues with a frame")
    return Evaluation(
        chains=chains,
        residues=residues,
        codes_used_ratio=fidelity.used_ratio(counts),
        perplexity=fidelity.perplexity(counts),
        **_window_figures(rmsd, notes),
        mutual_information_bits=_mutual_information(joint, notes),
        **_reconstruction_figures(notes),
        quantization_distance_mean=distance / residues,
        model=model.name,
        codebook_version=model.codebook.version,
        notes=tuple(notes),
    )


def _groups(records: Iterable[Record]) -> Iterator[list[Record]]:
    group: list[Record] = []
    residues = 0
    for record in records:
        group.append(record)
        residues += len(record.sequence)
        if residues >= _PART:
            yield group
            group, residues = [], 0
    if group:
        yield group


def _table(
    model: Model, reference: Iterable[Record] | None, config: EvaluationConfig, watch: Watch | None, notes: list[str]
) -> NDArray[np.float32] | None:
    """The window of each code (codes, 9, 3, 3), Å."""
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
        watch,
    )


def _window_figures(rmsd: list[NDArray[np.float64]], notes: list[str]) -> dict[str, float | None]:
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
    return fidelity.mutual_information(joint)


def _reconstruction_figures(notes: list[str]) -> dict[str, None]:
    notes.append("no reconstruction figures: the model has no decoder")
    return {"backbone_rmsd_median": None, "lddt_ca_median": None, "tm_score_median": None}
