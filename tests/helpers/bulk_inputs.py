"""What a kind of input makes of files."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from foldmint_bulk.inputs.base import InputKind, InputOptions, RawStructure
from foldmint_bulk.inputs.registry import KINDS
from foldmint_bulk.unit import Unit


def plan(
    kind: str | InputKind,
    *paths: str | Path,
    structures: int = 10_000,
    options: InputOptions | None = None,
    skipped: Counter[str] | None = None,
) -> list[Unit]:
    """The units of files of a kind."""
    found = KINDS[kind] if isinstance(kind, str) else kind
    own = Counter[str]() if skipped is None else skipped
    return [*found.plan([str(path) for path in paths], structures, options or InputOptions(), own)]


def read(units: Sequence[Unit], options: InputOptions | None = None) -> list[RawStructure]:
    """The structures of units, as another process reads them: from their rows."""
    return [
        structure
        for unit in units
        for structure in KINDS[unit.kind].read(Unit.of(unit.row()), options or InputOptions())
    ]


def contents(structures: Sequence[RawStructure]) -> dict[str, object]:
    """By source, which none shares with another one."""
    found = {structure.source: structure.content for structure in structures}
    assert len(found) == len(structures)
    return found
