"""Structures between a worker and its parsers, as messages."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from foldmint_bulk.inputs.base import RawStructure
from foldmint_tokenizer.frames import Frames
from foldmint_tokenizer.neighborhoods import Geometry
from foldmint_tokenizer.structure.backbone import Backbone
from foldmint_tokenizer.structure.left_out import LeftOut, LeftOutKind, StructureContent

INVALID = "InvalidStructure"
"""Kind of failures of structures that the reader rejects; another try changes nothing."""
UNREADABLE = "Unreadable"
"""Kind of failures of what cannot be read: files, members of archives, the rest of a damaged archive."""
KILLED = "Killed"
"""Kind of failures of structures that end their parser, or need more memory or time than it has."""
FAILED = "Failed"
"""Kind of failures that should not be: a defect in this software."""


@dataclass(frozen=True)
class Failure:
    """A structure without tokens. kind: `InvalidStructure`, `Killed`, `Unreadable`, …; reason: for people."""

    source: str
    kind: str
    reason: str


@dataclass(frozen=True, eq=False)
class Parsed:
    """A structure, ready for the encoder. geometry: of its chains, each alone."""

    source: str
    content: StructureContent
    geometry: Geometry

    @property
    def residues(self) -> int:
        """In all chains."""
        return len(self.geometry.residue_index)


def request_of(raw: RawStructure) -> dict[str, Any]:
    """A structure for a parser."""
    content = raw.content
    if isinstance(content, tuple):
        return {"backbones": [_backbone_row(chain) for chain in content], "chains": raw.chains}
    return {"file": content, "name": raw.file_name, "chains": raw.chains, "format": raw.format}


def backbones_of(request: dict[str, Any]) -> tuple[Backbone, ...] | None:
    """The backbones of a request; None if it has a file. Raises InvalidStructure."""
    if "backbones" not in request:
        return None
    return tuple(Backbone(**row) for row in request["backbones"])


def answer_of(content: StructureContent, geometry: Geometry) -> dict[str, Any]:
    """A parser's answer."""
    frames = geometry.frames
    return {
        "chains": [_backbone_row(chain) for chain in content.chains],
        "left_out": [[one.kind.value, one.chain, one.residues, list(one.names)] for one in content.left_out],
        "warnings": list(content.warnings),
        "geometry": [frames.rotation, frames.origin, frames.exists, geometry.queries, geometry.nearest],
    }


def error_answer(kind: str, reason: str) -> dict[str, Any]:
    """A parser's answer for a structure that it cannot parse."""
    return {"error": kind, "reason": reason}


def parsed_of(source: str, answer: dict[str, Any]) -> Parsed | Failure:
    """What a parser answered."""
    if "error" in answer:
        return Failure(source, answer["error"], answer["reason"])
    chains = [Backbone(**row) for row in answer["chains"]]
    rotation, origin, exists, queries, nearest = answer["geometry"]
    index = np.concatenate([chain.residue_index for chain in chains]) if chains else np.empty(0, np.int64)
    left_out = tuple(
        LeftOut(LeftOutKind(kind), chain, residues, tuple(names)) for kind, chain, residues, names in answer["left_out"]
    )
    content = StructureContent(chains, left_out, tuple(answer["warnings"]))
    return Parsed(source, content, Geometry(Frames(rotation, origin, exists), index, queries, nearest))


def _backbone_row(chain: Backbone) -> dict[str, Any]:
    return {
        "chain": chain.chain,
        "sequence": chain.sequence,
        "residue_index": chain.residue_index,
        "coordinates": chain.coordinates,
        "insertion_codes": chain.insertion_codes,
    }
