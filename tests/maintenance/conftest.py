"""Backbones, sets and models that are small and known."""

import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from foldmint_maintenance.datasets.records import PreparedSet, Record, prepared, read_parquet, write_parquet
from foldmint_maintenance.training.config import TrainConfig
from foldmint_tokenizer.codebook import Codebook
from foldmint_tokenizer.decoder import Decoder
from foldmint_tokenizer.encoder import Encoder
from foldmint_tokenizer.model import Model
from foldmint_tokenizer.sizes import DecoderConfig, ModelConfig
from foldmint_tokenizer.store.model_store import Store, create_store
from helpers.distributed.distributed_repair import killed
from helpers.support import DATA

HELIX = (-57.0, -47.0)
STRAND = (-130.0, 130.0)

Built = Callable[[Sequence[tuple[float, float]]], NDArray[np.float32]]


def _placed(atoms: list[NDArray[np.float64]], bond: float, angle: float, torsion: float) -> NDArray[np.float64]:
    """The atom bound to the last one, at an angle with the one before and a torsion with the third last; degrees, Å."""
    a, b, c = atoms[-3:]
    along = (c - b) / np.linalg.norm(c - b)
    normal = np.cross(b - a, along)
    normal /= np.linalg.norm(normal)
    theta, phi = np.radians(180 - angle), np.radians(torsion)
    local = bond * np.array([np.cos(theta), np.sin(theta) * np.cos(phi), np.sin(theta) * np.sin(phi)])
    position: NDArray[np.float64] = c + local @ np.stack([along, np.cross(normal, along), normal])
    return position


def _built(torsions: Sequence[tuple[float, float]]) -> NDArray[np.float32]:
    atoms = [np.array([0.0, 0, 0]), np.array([1.46, 0, 0]), np.array([2.0, 1.42, 0])]
    for (_, psi), (phi, _) in pairwise(torsions):
        atoms.append(_placed(atoms, bond=1.33, angle=116.6, torsion=psi))
        atoms.append(_placed(atoms, bond=1.46, angle=121.7, torsion=180))
        atoms.append(_placed(atoms, bond=1.52, angle=111.0, torsion=phi))
    return np.array(atoms, np.float32).reshape(-1, 3, 3)


@pytest.fixture(scope="session")
def chains() -> list[Record]:
    """Real chains, about 20,000 residues, as records of a set."""
    return list(read_parquet(DATA / "chains.parquet"))


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Threads of OpenMP that wait for each other take far longer over tiny tensors than one does alone."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _signals_as_in_a_terminal() -> Iterator[None]:
    """A script's background jobs begin with SIGINT ignored, and so would these tests in one."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def built() -> Built:
    """A backbone (residues, 3, 3), Å, from pairs of phi and psi, degrees, with bonds of real lengths."""
    return _built


def _random_record(name: str, length: int, seed: int) -> Record:
    """A chain of helices, strands and turns; its letters tell which."""
    random = np.random.default_rng(seed)
    torsions: list[tuple[float, float]] = []
    letters = ""
    while len(torsions) < length:
        kind = "HEC"[random.integers(3)]
        for _ in range(int(random.integers(4, 12))):
            phi, psi = {"H": HELIX, "E": STRAND, "C": tuple(random.uniform(-150, 150, 2))}[kind]
            torsions.append((phi + random.normal(0, 5), psi + random.normal(0, 5)))
            letters += kind
    return Record(
        id=name,
        sequence="A" * length,
        residue_index=np.arange(1, length + 1, dtype=np.int64),
        coordinates=_built(torsions[:length]),
        dssp=letters[:length],
    )


@pytest.fixture
def records() -> list[Record]:
    """Six chains of 30 to 55 residues; in the second, a residue lacks its C."""
    records = [_random_record(f"r{seed}_A", 30 + 5 * seed, seed) for seed in range(6)]
    records[1].coordinates[5, 2] = np.nan
    return records


@pytest.fixture
def data(records: list[Record]) -> PreparedSet:
    """The same, prepared."""
    return prepared(records)


@pytest.fixture
def parquet(records: list[Record], tmp_path: Path) -> Path:
    """The same, as a file."""
    path = tmp_path / "set.parquet"
    write_parquet(records, path)
    return path


@pytest.fixture
def sizes() -> ModelConfig:
    return ModelConfig(width=16, heads=4, layers=2, out=8, codes=16)


@pytest.fixture
def quick() -> TrainConfig:
    """A training of eight steps through all of its phases."""
    return TrainConfig(
        steps=8,
        batch=32,
        unquantized=3,
        settling=2,
        initial_batches=2,
        initial_rounds=2,
        warmup=2,
        compiled=False,
    )


# The same trainings as `quick`, and after it few steps of each other stage.
_RECIPE = """
name = "tiny"
sizes = { width = 16, heads = 4, layers = 2, out = 8, codes = 16 }
decoder = { width = 32, heads = 2, layers = 2, chained = true }

[codes]
steps = 8
batch = 32
unquantized = 3
settling = 2
initial_batches = 2
initial_rounds = 2
warmup = 2
compiled = false

[joint_stage]
steps = 6
batch = 128
crop = 32
pair_rows = 8
warmup = 2
settling = 2

[decoder_stage]
steps = 7
batch = 128
crop = 32
pair_rows = 8
head_steps = 3
warmup = 2
settling = 2
"""


@pytest.fixture
def recipe_file(tmp_path: Path) -> Path:
    """A recipe of all stages, tiny."""
    path = tmp_path / "tiny.toml"
    path.write_text(_RECIPE, encoding="utf-8")
    return path


@pytest.fixture
def encoder(sizes: ModelConfig) -> Encoder:
    """An encoder whose weights are random, the scales of attention included."""
    torch.manual_seed(0)
    encoder = Encoder(sizes)
    for parameter in encoder.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return encoder.eval()


@pytest.fixture
def codebook(encoder: Encoder, data: PreparedSet, sizes: ModelConfig) -> Codebook:
    """Codes that are vectors of the data, so that several are used."""
    rows = data.rows(np.arange(0, len(data), len(data) // sizes.codes)[: sizes.codes])
    with torch.no_grad():
        vectors = encoder(*(torch.from_numpy(part) for part in rows))
    return Codebook(vectors, torch.ones(sizes.codes), vectors.clone())


@pytest.fixture
def model(encoder: Encoder, codebook: Codebook, tmp_path: Path) -> Model:
    """A model without windows."""
    return create_store(tmp_path / "a-model", name="tiny", encoder=encoder, codebook=codebook, about={})


@pytest.fixture
def decoding_model(encoder: Encoder, codebook: Codebook, tmp_path: Path) -> Model:
    """The same, with a small decoder whose weights are random."""
    torch.manual_seed(0)
    decoder = Decoder(DecoderConfig(64, 4, 2, chained=True))
    path = tmp_path / "a-decoding-model"
    return create_store(path, name="tiny", encoder=encoder, codebook=codebook, decoder=decoder, about={})


@pytest.fixture
def pdb_text() -> Callable[[dict[str, NDArray[np.float32]]], str]:
    """The text of a PDB file of alanines, from the backbone of each chain."""

    def text(chains: dict[str, NDArray[np.float32]]) -> str:
        lines = []
        serial = 0
        for chain, backbone in chains.items():
            for number, residue in enumerate(backbone, 1):
                for name, (x, y, z) in zip(("N", "CA", "C"), residue, strict=True):
                    if np.isnan(x):
                        continue
                    serial += 1
                    lines.append(
                        f"ATOM  {serial:5d}  {name:<3} ALA {chain}{number:4d}    {x:8.3f}{y:8.3f}{z:8.3f}"
                        f"  1.00  0.00           {name[0]}"
                    )
            lines.append("TER")
        return "\n".join([*lines, "END", ""])

    return text


@pytest.fixture
def harmed(decoding_model: Model, tmp_path: Path) -> Path:
    """A store whose active version, the second, has dead codes."""
    path = tmp_path / "a-decoding-model"
    store = Store(path)
    store.publish(killed(decoding_model.codebook.codebook), parent="000001", about={})
    store.activate("000002")
    return path


@pytest.fixture
def gate_data(records: list[Record], tmp_path: Path) -> Path:
    """Chains apart from those that are repaired on: the same folds, a little off."""
    random = np.random.default_rng(7)
    shaken = [
        replace(
            record,
            id=f"g{record.id}",
            coordinates=record.coordinates + random.normal(0, 0.05, (3, 3)).astype(np.float32),
        )
        for record in records
    ]
    path = tmp_path / "gate.parquet"
    write_parquet(shaken, path)
    return path
