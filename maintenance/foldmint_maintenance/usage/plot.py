"""Plot of the long tail of code usage."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

SUFFIXES = (".svg", ".png")
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "usage",  # the same picture is the same file
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def draw(tails: Sequence[tuple[str, NDArray[np.float64]]], dead_threshold: float, path: Path) -> None:
    """Write a plot of N by rank, on a log scale, in a file of one of `SUFFIXES`.

    tails: names, and N (codes,) of each; codes without hits, which have no place on the scale, are counted in the
    legend. Raises OSError if the file cannot be written, ValueError if its name has another ending.
    """
    check(path)
    with mpl.rc_context(_STYLE):
        figure = Figure((7, 3.5), layout="constrained")
        axes = figure.subplots()
        lowest = np.inf
        for name, N in tails:
            hit = np.sort(N[N > 0])[::-1]
            label = f"{name}: {len(N) - len(hit)} of {len(N)} never hit"
            axes.plot(np.arange(1, len(hit) + 1), hit, drawstyle="steps-mid", linewidth=1.3, label=label)
            if len(hit):
                lowest = min(lowest, hit[-1])
        if lowest <= 10 * dead_threshold:
            axes.axhline(dead_threshold, color="#b00020", linewidth=0.8, linestyle="--", label="dead below")
        axes.set(
            xlabel="rank of the code", ylabel="N, hits a step", yscale="log", xlim=(0, max(len(N) for _, N in tails))
        )
        axes.grid(axis="y", linewidth=0.3)
        axes.legend(frameon=False)
        metadata = dict.fromkeys(("Date", "Creator")) if path.suffix == ".svg" else None
        figure.savefig(path, dpi=150, metadata=metadata)


def check(path: Path) -> None:
    """Raise `ValueError` if the file has none of `SUFFIXES`."""
    if path.suffix not in SUFFIXES:
        raise ValueError(f"{path} ends with neither {' nor '.join(SUFFIXES)}")
