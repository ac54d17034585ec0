"""What codes of windows of different extent keep: of the window of nine residues, and of the whole chain.

    python benchmarks/codebook/code_spaces.py --train sets/train.parquet --val sets/val.parquet

k-means of true windows, with no encoder; chains are put together from the mean step of each code to the next residue,
with no decoder. Prints a table; takes some minutes.
"""

from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from numpy.typing import NDArray

from foldmint_maintenance.datasets.fragments import REACH
from foldmint_maintenance.datasets.loading import read_set
from foldmint_maintenance.datasets.records import PreparedSet, prepared
from foldmint_maintenance.evaluation import fragment_metrics
from foldmint_maintenance.evaluation.structure_metrics import backbone_rmsd, lddt_ca
from foldmint_maintenance.training.losses import frames
from foldmint_maintenance.vq.quantizer import first_codebook
from foldmint_tokenizer.codebook import nearest_code
from foldmint_tokenizer.decoder import Rigids, composed

CODES = 4096
EXTENTS = ((-4, 4), (-2, 2), (-1, 2), (-1, 1), (0, 1))


def main(
    train: Annotated[Path, typer.Option(help="Set to find codes on.")],
    val: Annotated[Path, typer.Option(help="Set to measure on.")],
    residues: Annotated[int, typer.Option(help="Drawn from the first.")] = 200_000,
    longest: Annotated[int, typer.Option(help="Chains put together, residues.")] = 256,
) -> None:
    """Print a row for each extent."""
    known, other = prepared(read_set(train)), prepared(read_set(val))
    drawn = np.sort(np.random.default_rng(0).choice(len(known), min(residues, len(known)), replace=False))
    print("| places | CA RMSD, Å | lDDT-CA | window RMSD, Å |\n|---|---|---|---|")
    for first, last in EXTENTS:
        places = slice(REACH + first, REACH + last + 1)
        table, codes, whole = coded(known, other, drawn, places)
        found = fragment_metrics.window_rmsd(table, codes[whole], other.windows(np.flatnonzero(whole)).positions)
        rmsd, lddt = together(other, codes, table, longest)
        print(f"| {first} to {last} | {rmsd:.2f} | {lddt:.3f} | {found.mean():.3f} |", flush=True)


def coded(
    known: PreparedSet, other: PreparedSet, drawn: NDArray[np.int64], places: slice
) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.bool_]]:
    """Mean windows of the codes, codes of the other set's residues, and whether their windows are whole."""
    learnt = known.windows(drawn)
    complete = learnt.exists.all(1)
    part = torch.from_numpy(learnt.positions[complete][:, places].reshape(complete.sum(), -1))
    embeddings = first_codebook(part, CODES, rounds=10, seed=0, step=0, batch=CODES).embeddings
    means = fragment_metrics.WindowMeans(CODES)
    means.add(learnt.positions[complete], nearest_code(part, embeddings)[0].numpy())
    seen = other.windows(np.arange(len(other)))
    codes, _ = nearest_code(torch.from_numpy(seen.positions[:, places].reshape(len(other), -1)), embeddings)
    table = means.windows()
    # A code that k-means left empty stands for the mean of all.
    table = np.where(np.isnan(table).any((1, 2, 3), keepdims=True), np.nanmean(table, 0), table).astype(np.float32)
    return table, codes.numpy(), np.asarray(seen.exists.all(1))


def together(
    data: PreparedSet, codes: NDArray[np.int64], table: NDArray[np.float32], longest: int
) -> tuple[float, float]:
    """Medians of CA RMSD, Å, and lDDT-CA of chains made of their codes' steps alone."""
    middle = frames(torch.from_numpy(table).double()[:, REACH : REACH + 2])
    back = middle.rotation[:, 0].mT
    apart = (back @ (middle.origin[:, 1] - middle.origin[:, 0])[..., None])[..., 0]
    steps = Rigids(back @ middle.rotation[:, 1], apart)
    rmsd, lddt = [], []
    starts = np.flatnonzero(np.diff(data.chain, prepend=-1))
    for start, end in zip(starts, [*starts[1:], len(data.chain)], strict=True):
        if end - start > longest or not data.shape.frames.exists[start:end].all():
            continue
        row = np.searchsorted(data.shape.queries, start)
        own = codes[row : row + end - start - 1]
        rotation = torch.cat([torch.eye(3).double()[None], steps.rotation[own]])
        origin = torch.cat([torch.zeros(1, 3).double(), steps.origin[own]])
        made = composed(Rigids(rotation[None], origin[None]))
        ca, truth = made.origin[0].numpy(), data.backbone[start:end, 1].astype(np.float64)
        rmsd.append(backbone_rmsd(truth[:, None], ca[:, None]))
        lddt.append(lddt_ca(truth, ca).chain)
    return float(np.median(rmsd)), float(np.median(lddt))


if __name__ == "__main__":
    typer.run(main)
