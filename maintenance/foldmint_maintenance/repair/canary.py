"""A small structure whose tokens show that a server serves what was published."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from foldmint_tokenizer.model import CodebookVersion, Model
from foldmint_tokenizer.structure.backbone import Backbone
from foldmint_tokenizer.tokenizer import StructureTokenizer

_FILE = Path(__file__).parent / "canary.json"


@dataclass(frozen=True)
class Canary:
    """A chain, and its tokens by one version of one codebook."""

    backbone: Backbone
    tokens: tuple[int, ...]

    def as_json(self) -> dict[str, Any]:
        """For a manifest: coordinates in Å, (residues, 3, 3)."""
        return {
            "chain": self.backbone.chain,
            "sequence": self.backbone.sequence,
            "residue_index": self.backbone.residue_index.tolist(),
            "coordinates": [
                [[round(float(x), 3) for x in atom] for atom in each] for each in self.backbone.coordinates
            ],
            "tokens": list(self.tokens),
        }


def canary_of(model: Model, version: CodebookVersion) -> Canary:
    """The embedded chain with its tokens by a version of the model's codebook, which need not be published yet."""
    backbone = _backbone(json.loads(_FILE.read_text(encoding="utf-8")))
    served = Model(model.name, model.config, model.encoder, model.encoder_digest, version)
    (chain,) = StructureTokenizer(served).tokenize(backbone)
    return Canary(backbone, tuple(chain.tokens.tolist()))


def canary_from(manifest: Mapping[str, Any]) -> Canary | None:
    """The canary of a version's manifest; None if it has none."""
    stored = manifest.get("about", {}).get("canary")
    return None if stored is None else Canary(_backbone(stored), tuple(stored["tokens"]))


def _backbone(stored: Mapping[str, Any]) -> Backbone:
    return Backbone(
        chain=stored["chain"],
        sequence=stored["sequence"],
        residue_index=np.array(stored["residue_index"], np.int64),
        coordinates=np.array(stored["coordinates"], np.float32).reshape(-1, 3, 3),
    )
