"""Topologies of trajectories: which atoms of a frame are the backbones of protein chains."""

from pathlib import PurePosixPath

from fsspec.core import url_to_fs

from foldmint_bulk.errors import UnreadableInput
from foldmint_bulk.inputs.files import read_input
from foldmint_tokenizer.errors import InvalidStructure
from foldmint_tokenizer.structure.options import Limits, Reading, ReadOptions
from foldmint_tokenizer.structure.reader import Topology, read_topology

GRO = ".gro"
_NAMES = tuple(name + packed for name in (".pdb", ".cif", ".mmcif", ".bcif", ".ent") for packed in ("", ".gz"))
SUFFIXES = (*_NAMES, GRO)
"""Of a topology beside a trajectory, in order of precedence."""

# A box of water has many times the residues of its protein.
_LIMITS = Limits(unpacked_bytes=2 * 2**30, residues=2_000_000)


def find_topology(trajectory: str) -> str | None:
    """The topology beside a trajectory: of its name, or called `topology`; None if there is none."""
    try:
        system, _ = url_to_fs(trajectory)
        folder, slash, name = trajectory.rpartition("/")
        for stem in (PurePosixPath(name).stem, "topology"):
            for suffix in SUFFIXES:
                path = f"{folder}{slash}{stem}{suffix}"
                if system.exists(path):
                    return path
    except OSError:
        return None
    return None


def load_topology(path: str, reading: Reading) -> Topology:
    """The protein chains of a topology, by the rules by which files are read, and their atoms.

    path: of a PDB, mmCIF or BinaryCIF file, plain or compressed, or of a GRO file. Raises UnreadableInput.
    """
    content = read_input(path)
    try:
        return read_topology(
            _as_cif(content) if path.lower().endswith(GRO) else content, ReadOptions(reading=reading, limits=_LIMITS)
        )
    except (InvalidStructure, ValueError) as error:
        raise UnreadableInput(f"{path}: {error}") from error


def _as_cif(content: bytes) -> bytes:
    """The atoms of a GRO file's first frame as mmCIF, without chains and tables of entities. Raises ValueError.

    Residue numbers have 5 columns, which PDB files do not have.
    """
    lines = content.decode("ascii", "replace").splitlines()
    try:
        count = int(lines[1])
        atoms = lines[2 : 2 + count]
        if len(atoms) < count:
            raise ValueError(f"it has {len(atoms)} atoms, not {count}")
        rows = []
        for number, line in enumerate(atoms, 1):
            points = [at for at in range(20, len(line)) if line[at] == "."]
            width = points[1] - points[0]
            axes = (float(line[20 + axis * width : 20 + (axis + 1) * width]) * 10 for axis in range(3))
            place = " ".join(f"{value:.4f}" for value in axes)
            names = " ".join(f'"{line[begin : begin + 5].strip()}"' for begin in (10, 5))
            rows.append(f"ATOM {number} {names} . . {int(line[:5])} . {place} 1")
    except (IndexError, ValueError) as error:
        raise ValueError(f"the GRO file is damaged: {error}") from error
    columns = "group_PDB id label_atom_id label_comp_id label_asym_id auth_asym_id auth_seq_id label_alt_id"
    head = [f"_atom_site.{name}" for name in f"{columns} Cartn_x Cartn_y Cartn_z pdbx_PDB_model_num".split()]
    return "\n".join(["data_gro", "loop_", *head, *rows, ""]).encode()
