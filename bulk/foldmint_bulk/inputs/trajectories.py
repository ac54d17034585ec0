"""Trajectories with a topology: every frame is a structure, and units are ranges of frames."""

import importlib.util
import tempfile
from collections import Counter
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, Self

import numpy as np
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem
from numpy.typing import NDArray

from foldmint_bulk.errors import InvalidInput, UnreadableInput
from foldmint_bulk.inputs.base import InputOptions, RawStructure, Unreadable
from foldmint_bulk.inputs.files import printable, reason_of
from foldmint_bulk.inputs.topologies import SUFFIXES, find_topology, load_topology
from foldmint_bulk.processes import Child, ChildDied, TimedOut
from foldmint_bulk.unit import Unit, detail_of, with_detail
from foldmint_tokenizer.errors import InvalidStructure
from foldmint_tokenizer.structure.backbone import Backbone
from foldmint_tokenizer.structure.reader import Topology

_SUFFIXES = (".xtc", ".trr", ".dcd")
_SECONDS = 600.0  # for some frames, or to count them all


class Trajectories:
    """A unit is a range of frames. Their coordinates are taken as they are stored, whatever the periodic box."""

    name: ClassVar[str] = "trajectory"

    def claims(self, path: str, beside: Container[str]) -> bool:  # noqa: ARG002 (as `InputKind` has it)
        """Whether its suffix is one of a trajectory."""
        return path.lower().endswith(_SUFFIXES)

    def check(self, path: str, options: InputOptions) -> None:
        """Check that mdtraj is installed, and that there is a topology with as many atoms."""
        if importlib.util.find_spec("mdtraj") is None:
            raise InvalidInput("trajectories need mdtraj: pip install 'foldmint[md]'")
        try:
            topology = load_topology(_topology_of(path, options), options.reading)
        except UnreadableInput as error:
            raise InvalidInput(str(error)) from error
        try:
            with _local(path) as file, _Reader() as reader:
                _check_atoms(path, reader.about(path, file)[1], topology)
        except _OtherAtoms as error:
            raise InvalidInput(str(error)) from error
        except UnreadableInput:
            return

    def plan(
        self,
        paths: Sequence[str],
        unit_structures: int,
        options: InputOptions,
        skipped: Counter[str],  # noqa: ARG002
    ) -> Iterator[Unit]:
        """Ranges of frames; the headers of the frames are read."""
        with _Reader() as reader:
            for path in paths:
                try:
                    topology = _topology_of(path, options)
                    with _local(path) as file:
                        frames, _ = reader.about(path, file)
                except UnreadableInput:
                    frames, topology = 0, ""
                if not frames:
                    yield Unit(self.name, (path,))
                step = unit_structures * options.stride
                for start in range(0, frames, step):
                    stop = min(frames, start + step)
                    structures = len(range(start, stop, options.stride))
                    yield with_detail(Unit(self.name, (path,), start, stop, structures), topology=topology)

    def read(
        self,
        unit: Unit,
        options: InputOptions,
        skipped: Counter[str],  # noqa: ARG002
    ) -> Iterator[RawStructure]:
        """The frames of the range, every `stride` one, named by their numbers in the file, from 0 on."""
        (path,) = unit.paths
        topology = load_topology(detail_of(unit).get("topology") or _topology_of(path, options), options.reading)
        places = np.concatenate([atoms.ravel() for atoms in topology.atoms])
        there = places >= 0
        with _local(path) as file, _Reader() as reader:
            frames, atoms = reader.about(path, file)
            if not frames:
                raise UnreadableInput(f"{path}: it has no frames")
            _check_atoms(path, atoms, topology)
            request = {"start": unit.start, "stop": unit.stop, "stride": options.stride, "atoms": places[there]}
            number = unit.start
            for positions in reader.frames(path, file, request):
                for frame in positions:
                    coordinates = np.full((len(places), 3), np.nan, np.float32)
                    coordinates[there] = frame
                    yield RawStructure(printable(f"{path}!{number}"), _chains(topology, coordinates))
                    number += options.stride


def _chains(topology: Topology, coordinates: NDArray[np.float32]) -> tuple[Backbone, ...] | Unreadable:
    """The chains of a frame. coordinates: (residues of all chains times 3, 3), Å."""
    chains, begin = [], 0
    for chain in topology.chains:
        own = coordinates[begin : begin + 3 * len(chain)].reshape(-1, 3, 3)
        begin += 3 * len(chain)
        try:
            chains.append(Backbone(chain.chain, chain.sequence, chain.residue_index, own, chain.insertion_codes))
        except InvalidStructure as error:
            return Unreadable(str(error))
    return tuple(chains)


def _topology_of(path: str, options: InputOptions) -> str:
    """The path of a trajectory's topology. Raises UnreadableInput if there is none."""
    found = options.topology or find_topology(path)
    if found is None:
        stem = PurePosixPath(path).stem
        raise UnreadableInput(
            f"{path}: a trajectory needs the topology of its atoms; give it by --topology, or put it beside it, named "
            f"{stem} or topology ({', '.join(SUFFIXES)})"
        )
    return found


class _OtherAtoms(UnreadableInput):
    """A trajectory and its topology do not fit."""


def _check_atoms(path: str, atoms: int, topology: Topology) -> None:
    if atoms != topology.atom_count:
        raise _OtherAtoms(f"{path}: it has {atoms} atoms, and its topology {topology.atom_count}")


class _Reader:
    """Reads trajectories in a process of its own, which is started again if a file ends it; to be closed."""

    def __init__(self) -> None:
        self._child: Child | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def about(self, path: str, file: Path) -> tuple[int, int]:
        """The numbers of frames and atoms. Raises UnreadableInput."""
        answer = next(self._answers(path, {"path": str(file)}))
        return answer["frames"], answer["atoms"]

    def frames(self, path: str, file: Path, request: dict[str, Any]) -> Iterator[NDArray[np.float32]]:
        """The coordinates of the frames wanted, (frames, atoms, 3), Å, some at a time. Raises UnreadableInput."""
        for answer in self._answers(path, {"path": str(file), **request}):
            if not answer:
                return
            yield answer["positions"]

    def _answers(self, path: str, request: dict[str, Any]) -> Iterator[dict[str, Any]]:
        self._child = self._child or Child("foldmint_bulk.inputs.trajectory_process", {"OMP_NUM_THREADS": "1"})
        try:
            self._child.send(request)
            while True:
                answer: dict[str, Any] = self._child.receive(_SECONDS)
                if "error" in answer:
                    raise UnreadableInput(f"{path}: {answer['error']}")
                yield answer
        except (ChildDied, TimedOut) as error:
            self._end()
            why = f"takes longer than {_SECONDS:g} seconds" if isinstance(error, TimedOut) else f"is {error}"
            raise UnreadableInput(f"{path}: the file is damaged: mdtraj {why}") from error

    def _end(self) -> None:
        if self._child is not None:
            self._child.close()
            self._child = None


@contextmanager
def _local(path: str) -> Iterator[Path]:
    """A file of this machine: the input itself, or a copy for as long as the block runs. Raises UnreadableInput."""
    try:
        system, name = url_to_fs(path)
    except Exception as error:
        raise UnreadableInput(f"{path}: {reason_of(error)}") from error
    if isinstance(system, LocalFileSystem):
        if not Path(name).is_file():
            raise UnreadableInput(f"{path}: no such file")
        yield Path(name)
        return
    with tempfile.TemporaryDirectory(prefix="foldmint-") as folder:
        copy = Path(folder) / PurePosixPath(name).name
        try:
            system.get_file(name, str(copy))
        except Exception as error:
            raise UnreadableInput(f"{path}: {reason_of(error)}") from error
        yield copy
