"""Gates: what a changed codebook must not make worse, measured on chains that it was not made from."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from foldmint.usage import perplexity
from foldmint_maintenance.datasets.records import PreparedSet, Record
from foldmint_maintenance.evaluation import fragment_metrics
from foldmint_maintenance.evaluation.reconstruction import Decoding
from foldmint_tokenizer.codebook import nearest_code
from foldmint_tokenizer.detokenizer import StructureDetokenizer
from foldmint_tokenizer.model import CodebookVersion, Model


@dataclass(frozen=True)
class GateLimits:
    """How much worse each figure may be.

    quantization_error, perplexity, reconstruction: a share of what it was. utilization: a share of the codes; on few
    residues, a moved code may take the only hits of two others. churn: the share of tokens that may change.
    """

    quantization_error: float = 0.01
    utilization: float = 0.002
    perplexity: float = 0.02
    reconstruction: float = 0.03
    churn: float = 0.5

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not 0 <= value <= 1:
                raise ValueError(f"the limit of {name} must be between 0 and 1, not {value}")


@dataclass(frozen=True)
class Gate:
    """A figure before and after, what it must not pass, and whether it did not."""

    before: float
    after: float
    limit: float
    passed: bool

    def as_json(self) -> dict[str, Any]:
        """For json.dumps."""
        return asdict(self)


def at_most(before: float, after: float, limit: float) -> Gate:
    """A figure that is better when it is smaller. NaN does not pass."""
    return Gate(before, after, limit, after <= limit)


def at_least(before: float, after: float, limit: float) -> Gate:
    """A figure that is better when it is larger. NaN does not pass."""
    return Gate(before, after, limit, after >= limit)


MEANINGS = {
    "quantization_error": "mean squared distance of a vector to its code; lower is better",
    "utilization": "share of the codes that are hit; higher is better",
    "perplexity": "number of codes used alike that would have the same entropy; higher is better",
    "churn": "share of the tokens that change; what was tokenized before does not fit the new codebook there",
    "live_rows": "largest change of a vector of a code that was not dead; must be 0",
    "reconstruction_backbone_rmsd": "RMSD of decoded backbones, Å, median over the chains; lower is better",
    "reconstruction_lddt_ca": "lDDT of decoded CA, 0 to 1, median over the chains; higher is better",
    "window_rmsd": "RMSD of the windows that share a code, Å; lower is better",
}
"""What each gate's figure is."""


class QuantizationFigures(NamedTuple):
    """What a codebook does to vectors: tokens (rows,) int64; error: mean squared distance, in the vectors' units;
    utilization: share of the codes that were hit; perplexity of the hits.
    """

    tokens: NDArray[np.int64]
    error: float
    utilization: float
    perplexity: float


def quantization_figures(z: Tensor, embeddings: Tensor) -> QuantizationFigures:
    """Of vectors z (rows, out) among codes (codes, out)."""
    codes, apart = nearest_code(z, embeddings)
    tokens = codes.cpu().numpy()
    counts = np.bincount(tokens, minlength=len(embeddings))
    error = float(apart.double().square().mean())
    return QuantizationFigures(tokens, error, fragment_metrics.used_ratio(counts), perplexity(counts))


def codebook_gates(before: QuantizationFigures, after: QuantizationFigures, limits: GateLimits) -> dict[str, Gate]:
    """Gates of the codebook alone, by name."""
    churn = float((before.tokens != after.tokens).mean())
    return {
        "quantization_error": at_most(before.error, after.error, before.error * (1 + limits.quantization_error)),
        "utilization": at_least(before.utilization, after.utilization, before.utilization - limits.utilization),
        "perplexity": at_least(before.perplexity, after.perplexity, before.perplexity * (1 - limits.perplexity)),
        "churn": at_most(0.0, churn, limits.churn),
    }


def live_rows_gate(before: Tensor, after: Tensor, replaced: Tensor) -> Gate:
    """The largest change of a row (codes, out) that was not to be replaced (codes,) bool; it must be 0."""
    live = ~replaced
    change = (after[live] - before[live]).abs()
    return at_most(0.0, float(change.max()) if change.numel() else 0.0, 0.0)


class ReconstructionFigures(NamedTuple):
    """Medians over the decoded chains: RMSD of the backbone, Å; lDDT of the CA, 0 to 1. None where none was decoded."""

    backbone_rmsd: float | None
    lddt_ca: float | None


def reconstruct(
    model: Model,
    version: CodebookVersion,
    records: Sequence[Record],
    data: PreparedSet,
    tokens: NDArray[np.int64],
    max_residues: int,
    report: Callable[[int], None] | None = None,
) -> ReconstructionFigures:
    """What the model's decoder makes of a set's chains, by the rows of a version.

    tokens: (residues,) of the version's codebook; residues without a frame have theirs too.
    """
    if model.decoder is None:
        return ReconstructionFigures(None, None)
    decoding = Decoding(StructureDetokenizer(replace(model, codebook=version)), max_residues, report=report)
    ends = np.cumsum([len(record.sequence) for record in records])[:-1]
    for chain in zip(records, np.split(tokens, ends), np.split(data.shape.frames.exists, ends), strict=True):
        decoding.add(*chain)
    found = decoding.figures().all
    return ReconstructionFigures(found.backbone_rmsd.median, found.lddt_ca.median)


def reconstruction_gates(
    before: ReconstructionFigures, after: ReconstructionFigures, limits: GateLimits
) -> dict[str, Gate]:
    """Gates of what is decoded, by name; none where nothing was."""
    found: dict[str, Gate] = {}
    if before.backbone_rmsd is not None and after.backbone_rmsd is not None:
        highest = before.backbone_rmsd * (1 + limits.reconstruction)
        found["reconstruction_backbone_rmsd"] = at_most(before.backbone_rmsd, after.backbone_rmsd, highest)
    if before.lddt_ca is not None and after.lddt_ca is not None:
        lowest = before.lddt_ca * (1 - limits.reconstruction)
        found["reconstruction_lddt_ca"] = at_least(before.lddt_ca, after.lddt_ca, lowest)
    return found


def whole_tokens(data: PreparedSet, codes: NDArray[np.int64], frameless: int) -> NDArray[np.int64]:
    """Tokens (residues,) of a set from the codes (rows,) of the residues with a frame."""
    tokens = np.full(len(data.chain), frameless, np.int64)
    tokens[data.shape.queries] = codes
    return tokens


def frameless_code(model: Model, embeddings: Tensor) -> int:
    """The code of residues without a frame."""
    with torch.inference_mode():
        return int(nearest_code(model.encoder.without_frame()[None].float().to(embeddings.device), embeddings)[0])
