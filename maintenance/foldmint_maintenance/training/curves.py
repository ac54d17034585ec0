"""Training curves: each figure of a training log by step, as one SVG."""

import csv
import gzip
from io import StringIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from foldmint_maintenance.errors import InvalidSet

# Maximum number of points of a curve, and of steps that a smoothed value averages.
_POINTS = 1000
_SMOOTHED = 50
_COLUMNS = 3


def read_log(path: Path) -> dict[str, NDArray[np.float64]]:
    """The columns (steps,) of a log.csv, plain or gzip, by name; those that are zero throughout are left out.

    Raises InvalidSet if the file is not a log or has no rows.
    """
    content = path.read_bytes()
    try:
        text = (gzip.decompress(content) if path.suffix == ".gz" else content).decode("ascii")
        rows = list(csv.DictReader(StringIO(text)))
        columns = {name: np.array([float(row[name]) for row in rows]) for name in (rows[0] if rows else {})}
    except (OSError, EOFError, UnicodeDecodeError, TypeError, ValueError) as error:
        raise InvalidSet(f"{path} is not a log of a training: {error}") from error
    if "step" not in columns:
        raise InvalidSet(f"{path} is not a log of a training: it has no steps")
    return {name: values for name, values in columns.items() if name == "step" or values.any()}


def smoothed(values: NDArray[np.float64], most: int = _SMOOTHED) -> NDArray[np.float64]:
    """Centered moving averages (steps,), over fewer values at the ends."""
    reach = min(most, len(values)) // 2
    total = np.cumsum(np.concatenate([[0.0], values]))
    places = np.arange(len(values))
    first, last = np.maximum(places - reach, 0), np.minimum(places + reach + 1, len(values))
    means: NDArray[np.float64] = (total[last] - total[first]) / (last - first)
    return means


def draw(columns: dict[str, NDArray[np.float64]], out: Path) -> None:
    """Write the curves of a log's columns, but for its seconds, to an SVG file."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    names = [name for name in columns if name not in ("step", "seconds")]
    rows = -(-len(names) // _COLUMNS)
    # A fixed salt: the same curves make the same file.
    with mpl.rc_context({"svg.hashsalt": "foldmint"}):
        figure = Figure(figsize=(4 * _COLUMNS, 2.6 * rows), layout="constrained")
        for place, name in enumerate(names):
            axes = figure.add_subplot(rows, _COLUMNS, place + 1)
            begun = columns[name] != 0  # losses that count only from some step on
            steps, values = columns["step"][begun], smoothed(columns[name][begun])
            # More points than the eye can resolve only make the file larger.
            every = max(1, len(steps) // _POINTS)
            axes.plot(steps[::every], values[::every], linewidth=1)
            axes.set_title(name.replace("_", " "), fontsize=9)
            axes.set_xlabel("step", fontsize=8)
            axes.tick_params(labelsize=7)
            axes.grid(visible=True, alpha=0.3)
        figure.savefig(out, format="svg", metadata={"Date": None})
