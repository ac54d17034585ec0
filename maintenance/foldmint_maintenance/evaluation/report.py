"""Report of an evaluation: figures, plots and notes in one self-contained HTML file."""

from collections.abc import Iterator
from html import escape

import numpy as np

from foldmint_maintenance.evaluation.evaluate import Details, Evaluation
from foldmint_maintenance.evaluation.reconstruction import Quartiles, Trace
from foldmint_maintenance.evaluation.tables import (
    ASSIGNMENT_COLUMNS,
    RECONSTRUCTION_COLUMNS,
    assignment_rows,
    evaluation_rows,
    reconstruction_rows,
    trust,
)
from foldmint_maintenance.html_page import document, figure, table

# Dead codes listed by number; of the rest only the count is given.
_DEAD_TOLD = 100


def page(result: Evaluation) -> str:
    """A whole HTML document, light or dark as the reader's system is. The result must have its details."""
    if result.details is None:
        raise ValueError("the evaluation has no details to draw")
    title = f"{result.model}, codebook {result.codebook_version}"
    parts = [
        f"<h1>{escape(title)}</h1>",
        f"<p>{result.chains:,} chains, {result.residues:,} residues with a frame.</p>",
        "<h2>Figures</h2>",
        table((), evaluation_rows(result)),
        "<h2>Use of the codes</h2>",
        *_usage(result.details),
        *_reconstruction(result, result.details),
        *_assignments(result),
        "<h2>Notes</h2>",
        "<ul>",
        *(f"<li>{escape(note)}</li>" for note in result.notes),
        "</ul>",
    ]
    return document(title, parts)


def _usage(details: Details) -> Iterator[str]:
    # Here and below, not above: matplotlib takes a second to load.
    from foldmint_maintenance.evaluation import plots

    dead = np.flatnonzero(details.counts == 0)
    summary = f"{len(dead):,} of {len(details.counts):,} codes are dead on this set: no residue got them."
    yield figure(
        plots.code_usage(details.counts),
        f"Residues that got each code, the most used code first; dotted: the mean over all codes. {summary}",
    )
    if len(dead):
        more = f" and {len(dead) - _DEAD_TOLD:,} more" if len(dead) > _DEAD_TOLD else ""
        numbers = ", ".join(str(code) for code in dead[:_DEAD_TOLD])
        yield f"<details><summary>Dead codes</summary><p>{numbers}{more}</p></details>"


def _reconstruction(result: Evaluation, details: Details) -> Iterator[str]:
    if result.reconstruction is None or not details.chains:
        return
    from foldmint_maintenance.evaluation import plots

    yield "<h2>Reconstruction</h2>"
    yield "<p>Each chain encoded and decoded. Medians, with the quartiles in brackets.</p>"
    yield table(RECONSTRUCTION_COLUMNS, reconstruction_rows(result.reconstruction, _spread))
    yield f"<p>The decoder's confidence: {escape(trust(result.reconstruction.confidence))}.</p>"
    shown = len(plots.thinned(details.chains))
    few = "" if shown == len(details.chains) else f" {shown:,} of {len(details.chains):,} chains are shown."
    yield figure(
        plots.by_length(details.chains, result.reconstruction.buckets),
        f"Chains by length, with the median and the quartiles of each range of lengths.{few}",
    )
    yield figure(plots.rmsd_histogram(details.chains), "Chains by RMSD.")
    yield f"<h3>Of {len(details.traces)} chains drawn at random</h3>"
    yield (
        "<p>CA traces after superposition of the backbones, seen along the axis in which the true chain extends least; "
        '<span style="color: var(--truth)">■</span> truth, <span style="color: var(--guess)">■</span> reconstruction, '
        "a dot where the chain begins. Chosen by TM-score.</p>"
    )
    yield '<div class="row">'
    for name, trace in chosen(details.traces):
        figures = trace.figures
        yield figure(
            plots.superposition(name, trace),
            f"{name}: {figures.id}, {figures.length} residues, RMSD {figures.backbone_rmsd:.2f} Å, "
            f"TM-score {figures.tm_score:.3f}, lDDT-CA {figures.lddt_ca:.3f}",
        )
    yield "</div>"


def _assignments(result: Evaluation) -> Iterator[str]:
    if result.assignments is not None:
        yield "<h2>Assignments</h2>"
        yield "<p>Medians. A chain of several segments counts each by itself.</p>"
        yield table(ASSIGNMENT_COLUMNS, assignment_rows(result.assignments))


def chosen(traces: list[Trace]) -> list[tuple[str, Trace]]:
    """The worst, the median and the best by TM-score, of one trace or more; one alone where they are the same."""
    ranked = sorted(traces, key=lambda trace: trace.figures.tm_score)
    places = {"worst": 0, "median": len(ranked) // 2, "best": len(ranked) - 1}
    return [(name, ranked[place]) for place, name in {place: name for name, place in places.items()}.items()]


def _spread(of: Quartiles) -> str:
    return "–" if of.median is None else f"{of.median:.3g} [{of.lower_quartile:.3g}, {of.upper_quartile:.3g}]"
