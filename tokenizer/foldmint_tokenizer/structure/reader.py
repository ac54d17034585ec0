"""Reads structure files: their protein chains, as backbones, and what was left out."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from foldmint_tokenizer.errors import InvalidStructure
from foldmint_tokenizer.structure.assembly import build_assembly
from foldmint_tokenizer.structure.atom_table import AtomTable, listed
from foldmint_tokenizer.structure.backbone import Backbone, as_float32
from foldmint_tokenizer.structure.chains import ProteinChain, find_chains
from foldmint_tokenizer.structure.esm_reading import esm_left_out, find_esm_chains
from foldmint_tokenizer.structure.formats.binary_cif import read_binary_cif
from foldmint_tokenizer.structure.formats.cif_block import CifBlock
from foldmint_tokenizer.structure.formats.cif_text import read_cif_text
from foldmint_tokenizer.structure.formats.decompress import unpacked
from foldmint_tokenizer.structure.formats.detection import detect_format
from foldmint_tokenizer.structure.formats.mmcif import read_blocks
from foldmint_tokenizer.structure.formats.pdb import read_pdb
from foldmint_tokenizer.structure.left_out import LeftOut, LeftOutKind, StructureContent, frame_warnings
from foldmint_tokenizer.structure.options import Format, Limits, ReadOptions
from foldmint_tokenizer.structure.residue_names import STANDARD, letter
from foldmint_tokenizer.structure.residues import ProteinRuns, find_protein

# Residues of all kinds, including waters and nucleic acids, for each residue of a protein.
_RESIDUES_IN_ALL = 4
_FEWEST_IN_ALL = 1_000
_NAMES = 20


def read_structure(source: str | os.PathLike[str] | bytes, options: ReadOptions = ReadOptions()) -> StructureContent:
    """All protein chains of a file, or the requested ones, in the file's order, and what was left out.

    source: a path, or a file's bytes; plain or compressed. `find_protein` and `find_chains` define which residues
    count, and the chains' names; docs/reading.md explains it for users.

    Raises InvalidStructure, with field `content` or the option at fault; OSError if a path cannot be read.
    """
    read = _read(source, options)
    table, runs, chains, others = read.table, read.runs, read.chains, read.others
    esm = options.reading == "esm"
    taken = _chosen(chains, options.chains) if options.chains else chains
    _check_size(taken, options.limits)
    backbones, warnings = _backbones(table, taken, options)
    if options.assembly:
        backbones, taken = build_assembly(
            options.assembly, read.text if read.blocks is None else read.blocks, taken, backbones
        )
        _check_size(backbones, options.limits)
    warnings += frame_warnings(backbones)
    left_out = [*_left_out(table, runs, chains, taken, esm=esm), *others]
    return StructureContent(backbones, tuple(left_out), tuple(warnings))


@dataclass(frozen=True, eq=False)
class Topology:
    """Chains as a file has them, and where their atoms are among those of its model, for other coordinates of these.

    chains: as `read_structure` returns them. atoms: of each chain, (residues, 3), indices of N, CA and C; -1 for
    missing ones. atom_count: of the whole model.
    """

    chains: list[Backbone]
    atoms: list[NDArray[np.int64]]
    atom_count: int


def read_topology(source: str | os.PathLike[str] | bytes, options: ReadOptions = ReadOptions()) -> Topology:
    """All protein chains of a file, or the requested ones, with the places of their atoms.

    Raises InvalidStructure, as `read_structure` does.
    """
    read = _read(source, options)
    taken = _chosen(read.chains, options.chains) if options.chains else read.chains
    _check_size(taken, options.limits)
    backbones, _ = _backbones(read.table, taken, options)
    return Topology(backbones, [chain.atoms for chain in taken], len(read.table.role))


@dataclass(frozen=True, eq=False)
class _Read:
    """A file's model and its protein chains. blocks: None for a PDB file, of which there is the text."""

    text: bytes
    blocks: Sequence[CifBlock] | None
    table: AtomTable
    runs: ProteinRuns
    chains: list[ProteinChain]
    others: list[LeftOut]


def _read(source: str | os.PathLike[str] | bytes, options: ReadOptions) -> _Read:
    content = source if isinstance(source, bytes) else Path(source).read_bytes()
    limits = options.limits
    text = unpacked(content, limits.unpacked_bytes).removeprefix(b"\xef\xbb\xbf")
    form = options.format or detect_format(text, "" if isinstance(source, bytes) else Path(source).name)
    esm = options.reading == "esm"
    if form == "pdb":
        table, others = read_pdb(text, options.model_number, limits, short_names=esm)
        blocks = None
    else:
        blocks = _blocks(text, form, limits)
        table, others = read_blocks(blocks, options.model_number)
    _check_all(table, limits)
    runs = find_protein(table)
    chains = find_esm_chains(table) if esm else find_chains(table, runs.protein, runs.backbone)
    if not chains:
        raise InvalidStructure("content", _nothing(table, runs))
    return _Read(text, blocks, table, runs, chains, others)


def read_backbones(
    source: str | os.PathLike[str] | bytes,
    *,
    format: Format | None = None,  # noqa: A002 (the word that callers expect)
    model_number: int = 0,
    chains: Sequence[str] = (),
    limits: Limits = Limits(),
) -> list[Backbone]:
    """The chains that `read_structure` returns, without what was left out."""
    options = ReadOptions(format=format, model_number=model_number, chains=chains, limits=limits)
    return list(read_structure(source, options).chains)


def _blocks(text: bytes, form: Format, limits: Limits) -> Sequence[CifBlock]:
    if form == "bcif":
        return read_binary_cif(text, limits)
    return read_cif_text(text.replace(b"\r", b"\n") if b"\r" in text else text)


def _check_all(table: AtomTable, limits: Limits) -> None:
    """Raise InvalidStructure if a model is far beyond the limits, before it is analyzed."""
    most = max(_FEWEST_IN_ALL, _RESIDUES_IN_ALL * limits.residues)
    if len(table) > most:
        reason = f"{len(table)} residues, including those of other molecules than proteins; at most {most} are accepted"
        raise InvalidStructure("content", reason)


def _check_size(chains: Sequence[ProteinChain | Backbone], limits: Limits) -> None:
    """Raise InvalidStructure if there are more chains or residues than the limits allow."""
    if len(chains) > limits.chains:
        raise InvalidStructure("content", f"{len(chains)} chains; at most {limits.chains} are accepted")
    residues = sum(len(chain.coordinates) for chain in chains)
    if residues > limits.residues:
        raise InvalidStructure("content", f"{residues} residues; at most {limits.residues} are accepted")


def _nothing(table: AtomTable, runs: ProteinRuns) -> str:
    """The error for a file without protein chains; it names what the file contains instead."""
    counts = Counter(runs.kinds[kind].value.replace("_", " ") for kind in runs.kind.tolist())
    kinds = ", ".join(f"{count} of kind {kind}" for kind, count in counts.most_common())
    names = Counter(table.names[name] for name in table.name.tolist()).most_common(5)
    return f"the file has no protein residues; it has: {kinds} ({', '.join(name[:10] for name, _ in names)})"


def _chosen(chains: Sequence[ProteinChain], names: Sequence[str]) -> list[ProteinChain]:
    """The requested chains, by their own name or their author's. Raises InvalidStructure for unknown names."""
    for name in names:
        if not any(name in (chain.name, chain.author_name) for chain in chains):
            known = listed(sorted(chain.name for chain in chains))
            reason = f"no protein chain has this name; the file has: {known}"
            owners = sorted(chain.name for chain in chains if name in chain.segment_names)
            if owners:
                reason += f". It is the label_asym_id of chain {listed(owners)}; use auth_asym_id"
            raise InvalidStructure("chains", reason, chain=name)
    wanted = set(names)
    return [chain for chain in chains if wanted & {chain.name, chain.author_name}]


def _backbones(
    table: AtomTable, chains: Sequence[ProteinChain], options: ReadOptions
) -> tuple[list[Backbone], list[str]]:
    esm = options.reading == "esm"
    letters = np.array([_letter(name, by_ccd=table.entity_tables, esm=esm) for name in table.names])
    backbones, warnings = [], []
    for chain in chains:
        insertions = table.insertion[chain.runs].tobytes().decode("latin-1")
        numbers = table.number[chain.runs]
        coordinates = as_float32(chain.coordinates)
        if options.min_plddt is not None:
            low = _below(table, chain, options.min_plddt)
            coordinates[low] = np.nan
            if low.any():
                warnings.append(
                    f"chain {chain.name}: {low.sum()} of {len(low)} residues have a pLDDT (B-factor) below "
                    f"{options.min_plddt:g}, and are read as if they had no frame"
                )
        try:
            backbone = Backbone(
                chain=chain.name,
                sequence="".join(letters[table.name[chain.runs]].tolist()),
                residue_index=np.arange(1, len(numbers) + 1) if options.renumber else numbers,
                coordinates=coordinates,
                insertion_codes=insertions if insertions.strip() and not options.renumber else "",
            )
        except InvalidStructure as error:
            raise InvalidStructure("content", error.reason, chain=chain.name, residue=error.residue) from error
        backbones.append(backbone)
    return backbones, warnings


def _letter(name: str, *, by_ccd: bool, esm: bool) -> str:
    return STANDARD.get(name, "X") if esm else letter(name, by_ccd=by_ccd)


def _below(table: AtomTable, chain: ProteinChain, least: float) -> NDArray[np.bool_]:
    """Which residues have a CA with a B-factor below `least`, (residues,)."""
    there = chain.alpha >= 0
    low = np.zeros(len(there), bool)
    low[there] = table.b_factors(chain.alpha[there]) < least
    return low


def _left_out(
    table: AtomTable, runs: ProteinRuns, chains: list[ProteinChain], taken: Sequence[ProteinChain], *, esm: bool
) -> list[LeftOut]:
    """What was left out, by chain and kind, in the order of the file."""
    kinds = [*runs.kinds]
    kind = np.where(runs.protein, -1, runs.kind)
    if esm:
        alternates, others = esm_left_out(table, runs.protein, chains)
        kind[alternates] = kinds.index(LeftOutKind.ALTERNATE)
        kind[others] = kinds.index(LeftOutKind.HETATM)
        for chain in chains:
            kind[chain.runs] = -1
    for chain in chains:
        kind[chain.alternates] = kinds.index(LeftOutKind.ALTERNATE)
    names_taken = {chain.name for chain in taken}
    chain_names, chain_of = [*table.chain_names], table.chain.copy()
    for chain in chains:
        if chain.name not in names_taken:
            kind[chain.runs] = kinds.index(LeftOutKind.OTHER_CHAIN)
        if chain.name != chain.author_name:
            chain_of[chain.runs] = chain_of[chain.alternates] = len(chain_names)
            chain_names.append(chain.name)
    left = np.flatnonzero(kind >= 0)
    if len(left) == 0:
        return []
    code = (kind[left] * len(chain_names) + chain_of[left]) * len(table.names) + table.name[left]
    codes, first, counts = np.unique(code, return_index=True, return_counts=True)
    found: dict[tuple[int, int], list[tuple[int, str]]] = {}
    for place in np.argsort(first).tolist():
        pair, name = divmod(int(codes[place]), len(table.names))
        found.setdefault(divmod(pair, len(chain_names)), []).append((int(counts[place]), table.names[name]))
    return [
        LeftOut(
            kinds[of_kind],
            chain_names[of_chain],
            sum(count for count, _ in names),
            tuple(name for _, name in sorted(names, key=lambda pair: -pair[0])[:_NAMES]),
        )
        for (of_kind, of_chain), names in found.items()
    ]
