"""What traffic of few structures proves about dead codes, and how many residues it takes to judge all of them.

    python -m benchmarks dead-code-evidence [--data FILE] [--model DIR] --json FILE

All codes of the model are alive. The set is counted as if it was sent once or several times. Compared are codes without
a hit, which a count of residues per code alone would call dead, and those that `foldmint.usage.evidence` calls dead.
"""

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from benchmarks._common import write
from benchmarks._load import CHAINS
from foldmint.usage import evidence
from foldmint_maintenance.usage.sources import from_data
from foldmint_tokenizer.store.model_store import load_model

_COLUMNS = ("times", "residues_a_code", "unhit", "called_dead", "design_effect", "independent_residues_a_code")
_MOST = 10_000.0  # residues a code


def needed_residues_a_code(N: NDArray[np.float64]) -> float:
    """Independent residues per code with which every code without a hit can be called dead. N: (codes,)."""
    low, high = 1.0, _MOST
    while high / low > 1.001:
        middle = (low * high) ** 0.5
        # The hits that are expected, so that the design effect is 1.
        judged = evidence(N / N.sum() * middle * len(N), N).judged.all()
        low, high = (low, middle) if judged else (middle, high)
    return high


def main(
    data: Annotated[Path, typer.Option(help="A set.")] = CHAINS,
    model: Annotated[Path | None, typer.Option(help="A store; by default, the embedded model.")] = None,
    times: Annotated[int, typer.Option(min=1, help="How often it is sent, at most.")] = 5,
    file: Annotated[Path | None, typer.Option("--json", help="Write the figures to this JSON file.")] = None,
) -> None:
    """Print a row for each number of times."""
    counted = from_data(data, model).counts
    N = load_model(model).codebook.codebook.N.double().numpy()
    rows: list[dict[str, Any]] = []
    for repeats in range(1, times + 1):
        hits = counted * repeats
        found = evidence(hits, N)
        unhit = hits == 0
        figures = (
            repeats,
            float(hits.sum()) / len(N),
            int(unhit.sum()),
            int((unhit & found.judged).sum()),
            found.design_effect,
            found.independent / len(N),
        )
        rows.append(dict(zip(_COLUMNS, figures, strict=True)))
        print(*(f"{name} {value:.4g}" for name, value in rows[-1].items()), sep="  ")
    needed = needed_residues_a_code(N)
    print(
        f"all {len(N)} codes can be judged from {needed:.3g} independent residues a code, {needed * len(N):,.0f} in all"
    )
    figures_of_all = {"residues": int(counted.sum()), "rows": rows, "needed_residues_a_code": needed}
    write(file, figures_of_all)


if __name__ == "__main__":
    typer.run(main)
