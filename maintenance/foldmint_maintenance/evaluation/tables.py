"""Tables of an evaluation's figures, for a terminal and for the report."""

from collections.abc import Callable, Iterator, Mapping

from rich.table import Table

from foldmint_maintenance.evaluation import assignments, evaluate, reconstruction

_UNITS = {
    "window_rmsd_mean": "Å",
    "window_rmsd_median": "Å",
    "mutual_information_bits": "bits",
    "mutual_information_burial_bits": "bits",
    "backbone_rmsd_median": "Å",
    "tracking_rmsd_median": "Å",
    "anchored_rmsd_median": "Å",
}

ASSIGNMENT_COLUMNS = ("tokens", "length", "chains", "backbone RMSD, Å", "worst", "TM-score", "lDDT-CA")
RECONSTRUCTION_COLUMNS = ("length", "chains", "residues", "backbone RMSD, Å", "TM-score", "lDDT-CA")


def evaluation_table(result: evaluate.Evaluation) -> Table:
    """The figures that are known, one a row."""
    table = Table(title=f"{result.model}, codebook {result.codebook_version}", show_header=False)
    for row in evaluation_rows(result):
        table.add_row(*row)
    return table


def evaluation_rows(result: evaluate.Evaluation) -> Iterator[tuple[str, str, str]]:
    """Name, value and unit of the figures that are known, as text."""
    for name, value in result.as_json().items():
        if isinstance(value, int | float):
            shown = f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
            yield name.replace("_", " "), shown, _UNITS.get(name, "")
    for noise, share in (result.same_under_noise or {}).items():
        yield f"same under noise of {noise} Å", f"{share:.4g}", ""


def assignment_table(figures: Mapping[str, assignments.AssignmentFigures]) -> Table:
    """Medians of each assignment, a row for each range of lengths."""
    table = Table(*ASSIGNMENT_COLUMNS, title="by assignment")
    for row in assignment_rows(figures):
        table.add_row(*row)
    return table


def assignment_rows(figures: Mapping[str, assignments.AssignmentFigures]) -> Iterator[tuple[str, ...]]:
    """The cells of each assignment and range of lengths, as text."""
    for name, own in figures.items():
        for part in (own.up_to_256, own.longer, own.all):
            worst = f"{own.worst_rmsd:.3g}" if part is own.all and own.worst_rmsd is not None else ""
            measures = (part.tm_score, part.lddt_ca)
            yield (
                name,
                _lengths(part),
                f"{part.chains:,}",
                _median(part.backbone_rmsd),
                worst,
                *(_median(measure) for measure in measures),
            )


def reconstruction_table(figures: reconstruction.Reconstruction) -> Table:
    """Medians of the decoded chains, a row for each range of lengths."""
    table = Table(*RECONSTRUCTION_COLUMNS, title="encoded and decoded", caption=trust(figures.confidence))
    for row in reconstruction_rows(figures, _median):
        table.add_row(*row)
    return table


def reconstruction_rows(
    figures: reconstruction.Reconstruction, shown: Callable[[reconstruction.Quartiles], str]
) -> Iterator[tuple[str, ...]]:
    """The cells of each range of lengths, as text; shown: how quartiles are."""
    for part in (*figures.buckets, figures.up_to_256, figures.all):
        measures = (part.backbone_rmsd, part.tm_score, part.lddt_ca)
        yield _lengths(part), f"{part.chains:,}", f"{part.residues:,}", *(shown(measure) for measure in measures)


def trust(confidence: reconstruction.Confidence) -> str:
    """Calibration of the decoder's confidence, in words; empty if unknown."""
    measured = (
        ("pLDDT against lDDT-CA, by residue", confidence.plddt_correlation, confidence.plddt_bias),
        ("pTM against TM-score, by chain", confidence.ptm_correlation, confidence.ptm_bias),
    )
    return "; ".join(
        f"{what}: correlation {'unknown' if correlation is None else f'{correlation:.2f}'}, bias {bias:+.3f}"
        for what, correlation, bias in measured
        if bias is not None
    )


def _lengths(part: reconstruction.LengthFigures) -> str:
    if part.up_to is None:
        return f"more than {part.longer_than}" if part.longer_than else "all"
    return f"{part.longer_than + 1} to {part.up_to}"


def _median(of: reconstruction.Quartiles) -> str:
    return "–" if of.median is None else f"{of.median:.3g}"
