"""Effects of lever arm and environment weight: RMSD by assignment, stability, and information in the tokens.

    python -m benchmarks.codebook.motion_frontier --model MODEL --train sets/train.parquet --val sets/val.parquet

Uses one encoder of motions. For each choice, it computes codes by k-means, then composes chains of `val` from their
motions alone, without a decoder network. Prints a line for each choice, and writes all of them to a CSV file and a plot
of the frontier.
"""

import csv
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from numpy.typing import NDArray

from foldmint.usage import perplexity
from foldmint_maintenance.datasets.loading import read_set
from foldmint_maintenance.datasets.records import PreparedSet, Record, gathered, prepared
from foldmint_maintenance.datasets.sampling import drawn_chains
from foldmint_maintenance.datasets.surroundings import surroundings
from foldmint_maintenance.distributed.process_group import ALONE
from foldmint_maintenance.evaluation import fragment_metrics, structure_metrics
from foldmint_maintenance.training.config import MotionCodesConfig
from foldmint_maintenance.training.latents import vectors_of
from foldmint_maintenance.training.motion.codes import VectorSpace, motion_codebook
from foldmint_maintenance.training.motion.objective import follows, motions
from foldmint_tokenizer.codebook import nearest_code
from foldmint_tokenizer.encoder import Encoder
from foldmint_tokenizer.frames import Frames
from foldmint_tokenizer.motion.assignment import Assignment, CodeTable, assign, chain_segments, composed_atoms
from foldmint_tokenizer.motion.motions import MOTION
from foldmint_tokenizer.store.model_store import load_model

SHORT = 256
NOISE = 0.03  # Å a coordinate
_CLASSES = 8


def classes(column: NDArray[np.floating]) -> NDArray[np.int64]:
    """Of alike many residues each."""
    return np.asarray(np.digitize(column, np.quantile(column, np.arange(1, _CLASSES) / _CLASSES)), np.int64)


def joint(codes: NDArray[np.int64], letters: NDArray[np.integer], size: int) -> NDArray[np.int64]:
    """How often each pair occurs."""
    found = np.zeros((size, int(letters.max()) + 1), np.int64)
    np.add.at(found, (codes, letters), 1)
    return found


class Measured:
    """Chains of `val` and what the encoder says of them, to be quantized in many ways."""

    def __init__(self, encoder: Encoder, records: list[Record], short: int, long: int, seed: int = 0) -> None:
        self.some = [r for r in records if len(r.sequence) <= SHORT][:short]
        self.some += [r for r in records if len(r.sequence) > SHORT][:long]
        whole = prepared(records)
        self.letters = whole.dssp[whole.shape.queries]
        around = surroundings(whole)
        self.burial, self.order = (classes(column[whole.shape.queries]) for column in (around.neighbors, around.order))
        self.whole, self.z = whole, self._vectors(encoder, whole)
        random = np.random.default_rng(seed)
        moved = [r.coordinates + random.normal(0, NOISE, r.coordinates.shape).astype(np.float32) for r in self.some]
        self.noisy = [
            Record(r.id, r.sequence, r.residue_index, m, r.dssp) for r, m in zip(self.some, moved, strict=True)
        ]
        self.chains = [gathered([r]) for r in self.some]
        self.vectors = [self._vectors(encoder, chain) for chain in self.chains]
        self.noisy_vectors = [self._vectors(encoder, gathered([r])) for r in self.noisy]

    @staticmethod
    def _vectors(encoder: Encoder, data: PreparedSet) -> torch.Tensor:
        return vectors_of(encoder, data, np.arange(len(data)), ALONE, "cpu")


def encoder_error(measured: Measured, lever: float) -> tuple[float, float]:
    """RMS errors of the encoder's motions before quantization: of the rotation, degrees, and the translation, Å."""
    queries, frames = measured.whole.shape.queries, measured.whole.shape.frames
    bonded = follows(measured.whole)[queries]
    ends = queries[bonded], queries[bonded] + 1
    truth = motions(frames.rotation, frames.origin, *ends)
    apart = measured.z[torch.from_numpy(bonded), :MOTION].numpy() - truth * ([lever] * 9 + [1] * 3)
    # A rotation by a small angle changes the matrix by sqrt(2) times the angle.
    angle = np.sqrt(np.square(apart[:, :9]).sum(1).mean() / 2) / lever
    return float(np.degrees(angle)), float(np.sqrt(np.square(apart[:, 9:]).sum(1).mean()))


def row(measured: Measured, train: torch.Tensor, space: VectorSpace, config: MotionCodesConfig) -> dict[str, float]:
    """All figures of one choice; train: vectors (rows, out) of the encoder, for k-means."""
    codebook = motion_codebook(space(train), 4096, config)
    table = CodeTable.of(codebook.embeddings, config.lever)
    codes = nearest_code(space(measured.z), codebook.embeddings)[0].numpy()
    known = measured.letters > 0
    found: dict[str, float] = {
        "lever": config.lever,
        "burial": config.burial,
        "environment": config.environment,
        "used": fragment_metrics.used_ratio(np.bincount(codes, minlength=4096)),
        "perplexity": perplexity(np.bincount(codes, minlength=4096)),
        "mi_dssp": fragment_metrics.mutual_information(joint(codes[known], measured.letters[known], 4096)),
        "mi_burial": fragment_metrics.mutual_information(joint(codes, measured.burial, 4096)),
        "mi_order": fragment_metrics.mutual_information(joint(codes, measured.order, 4096)),
    }
    same = []
    for one, other in zip(measured.vectors, measured.noisy_vectors, strict=True):
        near = [nearest_code(space(z), codebook.embeddings)[0] for z in (one, other)]
        same.append(float((near[0] == near[1]).float().mean()))
    found["same_0.03"] = float(np.mean(same))
    for assignment in Assignment:
        figures = [_chain(table, assignment, *pair, space, codebook.embeddings) for pair in _pairs(measured)]
        for name, longer in (("short", False), ("long", True)):
            some = [f for f, r in zip(figures, measured.some, strict=True) if (len(r.sequence) > SHORT) == longer]
            if some:
                found[f"{assignment}_rmsd_{name}"] = float(np.median([f[0] for f in some]))
                found[f"{assignment}_lddt_{name}"] = float(np.median([f[1] for f in some]))
                found[f"{assignment}_worst_{name}"] = float(np.max([f[0] for f in some]))
    return found


def _pairs(measured: Measured) -> list[tuple[Record, Frames, torch.Tensor]]:
    frames = [chain.shape.frames for chain in measured.chains]
    return list(zip(measured.some, frames, measured.vectors, strict=True))


def _chain(
    table: CodeTable,
    assignment: Assignment,
    record: Record,
    frames: Frames,
    z: torch.Tensor,
    space: VectorSpace,
    embeddings: torch.Tensor,
) -> tuple[float, float]:
    """RMSD of the backbone, Å, and lDDT-CA of one chain composed of its codes' motions."""
    goes_on, segments = chain_segments(frames, record.residue_index, record.coordinates)
    own = space(z)
    codes = nearest_code(own, embeddings)[0].numpy()
    found = assign(table, assignment, frames, goes_on, segments, codes, own[:, MOTION:].numpy())
    atoms = composed_atoms(table, found.codes, segments)
    return (
        structure_metrics.backbone_rmsd(record.coordinates, atoms),
        structure_metrics.lddt_ca(record.coordinates[:, 1], atoms[:, 1]).chain,
    )


def main(
    train: Annotated[Path, typer.Option(help="Training set, for k-means.")],
    val: Annotated[Path, typer.Option(help="Data set to measure on.")],
    model: Annotated[str, typer.Option(help="A store whose codes encode motions: of the encoder stage, or embedded.")],
    choices: Annotated[
        str, typer.Option(help="Comma-separated choices lever:burial:environment, Å each.")
    ] = "8:0:0,10:0:0,10:1:0.3,9:1:0.5,10:1:1,10:1.5:1.5,10:2:2",
    residues: Annotated[int, typer.Option(help="Residues of the training set for k-means.")] = 300_000,
    rounds: Annotated[int, typer.Option(help="Rounds of k-means.")] = 12,
    short: Annotated[int, typer.Option(help="Number of chains with up to 256 residues.")] = 100,
    long: Annotated[int, typer.Option(help="Number of longer chains.")] = 25,
    out: Annotated[Path, typer.Option(help="CSV file.")] = Path("frontier.csv"),
) -> None:
    """Print a line for each choice, and write a plot beside the CSV file."""
    loaded = load_model(model)
    if loaded.lever is None:
        raise typer.BadParameter("its codes do not encode motions", param_hint="--model")
    data = prepared(drawn_chains(read_set(train), residues, 0))
    z = vectors_of(loaded.encoder, data, np.arange(len(data)), ALONE, "cpu")
    neighbors = torch.from_numpy(surroundings(data).neighbors[data.shape.queries])
    measured = Measured(loaded.encoder, list(read_set(val)), short, long)
    angle, distance = encoder_error(measured, loaded.lever)
    print(f"the encoder's motions are off by {angle:.2f} degrees and {distance:.3f} Å (RMS)", flush=True)
    rows = []
    for choice in choices.split(","):
        lever, burial, environment = (float(part) for part in choice.split(":"))
        config = MotionCodesConfig(lever, burial, environment, residues, rounds)
        space = VectorSpace.of(z, neighbors, loaded.lever, config)
        rows.append(row(measured, z, space, config))
        print("  ".join(f"{name} {value:.4g}" for name, value in rows[-1].items()), flush=True)
        with out.open("w", newline="", encoding="ascii") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    draw(rows, out.with_suffix(".svg"))


def draw(rows: list[dict[str, float]], path: Path) -> None:
    """Plot RMSD against the tokens' information and stability, one point for each choice."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt

    axes_of = (
        ("mi_burial", "MI with burial, bits"),
        ("mi_dssp", "MI with DSSP, bits"),
        ("same_0.03", "unchanged, 0.03 Å"),
    )
    figure, axes = plt.subplots(1, len(axes_of), figsize=(11, 3.6), sharey=True)
    for ax, (name, label) in zip(axes, axes_of, strict=True):
        for assignment in Assignment:
            points = sorted((each[name], each[f"{assignment}_rmsd_short"]) for each in rows)
            ax.plot(*zip(*points, strict=True), "o-", label=str(assignment))
        ax.set_xlabel(label)
        ax.set_yscale("log")
    axes[0].set_ylabel("backbone RMSD up to 256 residues, Å")
    axes[0].legend()
    figure.tight_layout()
    figure.savefig(path)


if __name__ == "__main__":
    typer.run(main)
