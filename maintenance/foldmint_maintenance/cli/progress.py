"""What the commands show: progress on a terminal, lines of text elsewhere, a table of figures."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from foldmint_maintenance.assigned import AssignmentFigures
from foldmint_maintenance.evaluation import evaluate, reconstruction

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


class TrainingDisplay:
    """A bar with the figures of the last step; where there is no terminal, a line every `every` steps."""

    def __init__(self, console: Console, every: int) -> None:
        self._console, self._every = console, every
        self._progress = Progress(
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.description}"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task("", total=None)

    def tell(self, text: str) -> None:
        """Show a line."""
        self._console.print(text, markup=False, highlight=False)

    def watch(self, step: NamedTuple, steps: int) -> None:
        """Show a step of a stage of so many; its figures are those that are not zero."""
        self._progress.start()
        told = step._asdict()
        done = told.pop("step")
        figures = "  ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in told.items() if value)
        self._progress.update(self._task, completed=done, total=steps, description=figures)
        if not self._console.is_terminal and (done % self._every == 0 or done == steps):
            self.tell(f"step {done}/{steps}  {figures}")

    def close(self) -> None:
        """Leave the terminal as it was."""
        self._progress.stop()


@contextmanager
def counting(console: Console, *what: str) -> Iterator[list[Callable[[int], None]]]:
    """Counts that grow, each of something whose end is not known."""
    columns = (SpinnerColumn(), TextColumn("{task.description} {task.completed:,.0f}"))
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        yield [partial(progress.advance, progress.add_task(each, total=None)) for each in what]


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


def assignment_table(figures: Mapping[str, AssignmentFigures]) -> Table:
    """Medians of each assignment, a row for each range of lengths."""
    table = Table(*ASSIGNMENT_COLUMNS, title="by assignment")
    for row in assignment_rows(figures):
        table.add_row(*row)
    return table


def assignment_rows(figures: Mapping[str, AssignmentFigures]) -> Iterator[tuple[str, ...]]:
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
