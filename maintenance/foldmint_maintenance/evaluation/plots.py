"""Plots of an evaluation, as SVG to be put into a page: its text stays text, its colors are the page's."""

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from foldmint_maintenance.evaluation.reconstruction import ChainFigures, LengthFigures, Quartiles, Trace

# Colors that stand for the page's own until the SVG is written.
_INK, _TRUTH, _GUESS = "#010203", "#040506", "#070809"
_CSS = {_INK: "currentColor", _TRUTH: "var(--truth)", _GUESS: "var(--guess)"}
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), _INK),
}
# Points of a plot; more would only make the page slow.
_POINTS = 3000


def code_usage(counts: NDArray[np.int64]) -> str:
    """Hits of each code by its rank, on a log scale; counts: (codes,)."""
    with _drawing("usage", 7, 3) as drawn:
        axes = drawn.figure.subplots()
        hits = np.sort(counts[counts > 0])[::-1]
        axes.plot(np.arange(1, len(hits) + 1), hits, color=_GUESS, drawstyle="steps-mid")
        axes.axhline(counts.mean(), color=_INK, linewidth=0.8, linestyle=":")
        axes.set(xlabel="rank of the code", ylabel="residues", yscale="log", xlim=(0, len(counts)))
    return drawn.svg


def usage_change(before: NDArray[np.int64], after: NDArray[np.int64]) -> str:
    """Hits of each code by its rank, on a log scale, of two codebooks; (codes,) each."""
    with _drawing("change", 7, 3) as drawn:
        axes = drawn.figure.subplots()
        for counts, color, label in ((before, _TRUTH, "before"), (after, _GUESS, "after")):
            hits = np.sort(counts[counts > 0])[::-1]
            axes.plot(np.arange(1, len(hits) + 1), hits, color=color, drawstyle="steps-mid", label=label)
        axes.set(xlabel="rank of the code", ylabel="residues", yscale="log", xlim=(0, len(before)))
        axes.legend(frameon=False)
    return drawn.svg


def by_length(chains: Sequence[ChainFigures], buckets: Sequence[LengthFigures]) -> str:
    """RMSD, TM-score and lDDT of chains by their length, with medians and quartiles of the buckets."""
    with _drawing("lengths", 11, 3.2) as drawn:
        columns = drawn.figure.subplots(1, 3)
        shortest, longest = min(chain.length for chain in chains), max(chain.length for chain in chains)
        ticks = [bucket.up_to for bucket in buckets if bucket.up_to and shortest <= bucket.up_to < 2 * longest]
        for axes, measure, label in zip(
            columns,
            ("backbone_rmsd", "tm_score", "lddt_ca"),
            ("backbone RMSD, Å", "TM-score", "lDDT-CA"),
            strict=True,
        ):
            some = thinned(chains)
            lengths = [chain.length for chain in some]
            axes.plot(lengths, [getattr(c, measure) for c in some], "o", color=_GUESS, markersize=2.5, mew=0, alpha=0.5)
            axes.set(xscale="log", xlabel="residues", ylabel=label)
            axes.set_xticks(ticks, [str(tick) for tick in ticks])
            axes.minorticks_off()
            axes.set_ylim(bottom=0, top=None if measure == "backbone_rmsd" else 1)
            for bucket in buckets:
                ends = [max(bucket.longer_than + 1, shortest), min(bucket.up_to or longest, longest)]
                _band(axes, ends, getattr(bucket, measure))
    return drawn.svg


def _band(axes: Axes, ends: list[int], of: Quartiles) -> None:
    """The median as a line from one end to the other, the quartiles as a band around it."""
    if of.median is None or of.lower_quartile is None or of.upper_quartile is None:
        return
    axes.fill_between(ends, of.lower_quartile, of.upper_quartile, color=_INK, alpha=0.15, linewidth=0)
    axes.plot(ends, [of.median, of.median], color=_INK, linewidth=1.2)


def thinned(chains: Sequence[ChainFigures]) -> Sequence[ChainFigures]:
    """Every second, or third, and so on, so that few enough points are left."""
    return chains[:: -(-len(chains) // _POINTS)]


def rmsd_histogram(chains: Sequence[ChainFigures]) -> str:
    """How many chains have which RMSD."""
    with _drawing("rmsd", 7, 3) as drawn:
        axes = drawn.figure.subplots()
        axes.hist([chain.backbone_rmsd for chain in chains], bins=40, color=_GUESS)
        axes.set(xlabel="backbone RMSD, Å", ylabel="chains")
        axes.set_xlim(left=0)
    return drawn.svg


def superposition(name: str, trace: Trace) -> str:
    """CA traces of truth and reconstruction, seen along the axis in which the truth extends least."""
    with _drawing(name, 3.4, 3.4) as drawn:
        axes = drawn.figure.subplots()
        center = trace.truth.mean(0)
        _, _, principal = np.linalg.svd((trace.truth - center).T @ (trace.truth - center))
        for points, color in ((trace.truth, _TRUTH), (trace.guess, _GUESS)):
            flat = (points - center) @ principal[:2].T
            axes.plot(*flat.T, color=color, linewidth=1.3, solid_joinstyle="round")
            axes.plot(*flat[0], "o", color=color, markersize=4, mew=0)
        axes.set_aspect("equal", "datalim")
        axes.set_axis_off()
    return drawn.svg


class _Drawing:
    """A figure, and its SVG once it is done."""

    def __init__(self, figure: Figure) -> None:
        self.figure = figure
        self.svg = ""


@contextmanager
def _drawing(name: str, width: float, height: float) -> Iterator[_Drawing]:
    """A figure of so many inches to draw on. name: goes before its ids, which must differ from those of other plots."""
    with mpl.rc_context({**_STYLE, "svg.hashsalt": name}):
        drawing = _Drawing(Figure((width, height), layout="constrained"))
        yield drawing
        file = io.StringIO()
        drawing.figure.savefig(file, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
        drawing.svg = _inline(file.getvalue(), name)


def _inline(text: str, name: str) -> str:
    """What of an SVG file belongs into a page: the element alone, with ids and colors of the page."""
    text = text[text.index("<svg") :].replace("<svg", '<svg role="img"', 1)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'(href="|url\()#', rf"\1#{name}-", text)
    for color, css in _CSS.items():
        text = text.replace(color, css)
    return text
