"""Tables of an evaluation's figures, for a terminal and for the report."""

from collections.abc import Callable, Iterator

from rich.table import Table

from foldmint_maintenance.evaluation import evaluate, reconstruction

_UNITS = {
    "window_rmsd_mean": "Å",
    "window_rmsd_median": "Å",
    "mutual_information_bits": "bits",
    "backbone_rmsd_median": "Å",
}

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
    """How far the decoder's own confidence can be believed, in words; empty where nothing is known."""
    told = (
        ("pLDDT against lDDT-CA, by residue", confidence.plddt_correlation, confidence.plddt_bias),
        ("pTM against TM-score, by chain", confidence.ptm_correlation, confidence.ptm_bias),
    )
    return "; ".join(
        f"{what}: correlation {'unknown' if correlation is None else f'{correlation:.2f}'}, bias {bias:+.3f}"
        for what, correlation, bias in told
        if bias is not None
    )


def _lengths(part: reconstruction.LengthFigures) -> str:
    if part.up_to is None:
        return f"more than {part.longer_than}" if part.longer_than else "all"
    return f"{part.longer_than + 1} to {part.up_to}"


def _median(of: reconstruction.Quartiles) -> str:
    return "–" if of.median is None else f"{of.median:.3g}"
