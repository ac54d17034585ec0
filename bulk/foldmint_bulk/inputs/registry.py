"""All kinds of inputs, by name."""

from collections.abc import Container

from foldmint_bulk.inputs.archives import Archives, Tars
from foldmint_bulk.inputs.base import InputKind
from foldmint_bulk.inputs.foldcomp import FoldcompDatabases
from foldmint_bulk.inputs.parquet import ParquetFiles
from foldmint_bulk.inputs.structure_files import StructureFiles
from foldmint_bulk.inputs.trajectories import Trajectories

KINDS: dict[str, InputKind] = {
    kind.name: kind
    for kind in (Tars(), Archives(), ParquetFiles(), Trajectories(), StructureFiles(), FoldcompDatabases())
}
"""In the order in which they are asked whether they claim a file; last the one that looks for other files beside it."""


def kind_of(path: str, beside: Container[str] = ()) -> InputKind | None:
    """A file's input kind, given its path and the names in its folder; None if no kind claims it."""
    return next((kind for kind in KINDS.values() if kind.claims(path, beside)), None)
