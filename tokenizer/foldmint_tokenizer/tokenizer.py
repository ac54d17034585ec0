"""An in-process tokenizer, without a server.

StructureTokenizer.load().tokenize("1crn.cif")
"""

import os
from collections.abc import Sequence

import torch

from foldmint_tokenizer.engine import Engine
from foldmint_tokenizer.errors import ModelError
from foldmint_tokenizer.model import Model
from foldmint_tokenizer.motion.assignment import Assignment, Coding
from foldmint_tokenizer.neighborhoods import Geometry, join_geometries, structure_geometry
from foldmint_tokenizer.store.model_store import load_model
from foldmint_tokenizer.structure.backbone import Backbone
from foldmint_tokenizer.structure.left_out import StructureContent, frame_warnings
from foldmint_tokenizer.structure.options import Format, Limits, Reading, ReadOptions
from foldmint_tokenizer.structure.reader import read_structure
from foldmint_tokenizer.tokens import TokenizedStructure, TokenizeOptions, assembled, coded


class StructureTokenizer:
    """A model on a device, ready to tokenize. Not thread-safe."""

    def __init__(self, model: Model, device: torch.device | str = "cpu") -> None:
        self.model = model
        self._engine = Engine(model.encoder, device)
        self._embeddings = model.codebook.codebook.embeddings.to(self._engine.device)
        self._frameless = self._engine.frameless_code(self._embeddings)
        self._coding = None if model.lever is None else Coding.of(self._embeddings, model.lever)

    @classmethod
    def load(
        cls, path: str | os.PathLike[str] | None = None, *, device: torch.device | str = "cpu"
    ) -> "StructureTokenizer":
        """Load the model of a store, by default the embedded one. Raises ModelError if it cannot be used."""
        return cls(load_model(path), device)

    def tokenize(
        self,
        structure: str | os.PathLike[str] | bytes | Backbone | Sequence[Backbone],
        *,
        complex: bool = False,  # noqa: A002 (the field's word)
        special_tokens: bool = False,
        distances: bool = False,
        assignment: Assignment = Assignment.INDEPENDENT,
        first_frames: bool = False,
        format: Format | None = None,  # noqa: A002
        model_number: int = 0,
        chains: Sequence[str] = (),
        reading: Reading | None = None,
        min_plddt: float | None = None,
        assembly: str = "",
        renumber: bool = False,
        limits: Limits = Limits(),
    ) -> TokenizedStructure:
        """Tokenize each chain of a structure, in the structure's order.

        structure: a PDB, mmCIF or BinaryCIF file, as path or bytes, plain or compressed; or backbones. complex,
        special_tokens, distances, assignment, first_frames: as in `TokenizeOptions`. format, model_number, chains,
        reading, min_plddt, assembly, renumber: as in `ReadOptions`, for files; reading is the model's own by default.

        Raises InvalidStructure; OSError if a path cannot be read; ModelError if the encoder fails, or if an option
        needs codes that encode motions, and the model's do not.
        """
        returned = TokenizeOptions(complex, special_tokens, distances, Assignment(assignment), first_frames)
        self.check(returned)
        if isinstance(structure, bytes | str | os.PathLike):
            own = self.model.reading if reading is None else reading
            options = ReadOptions(
                format=format,
                model_number=model_number,
                chains=chains,
                reading=own,
                min_plddt=min_plddt,
                assembly=assembly,
                renumber=renumber,
                limits=limits,
            )
            content = read_structure(structure, options)
        else:
            backbones = [structure] if isinstance(structure, Backbone) else structure
            content = StructureContent(backbones, warnings=frame_warnings(backbones))
        if not content.chains:
            return TokenizedStructure((), content.left_out, content.warnings)
        (tokenized,) = self.tokenize_parsed([(content, structure_geometry(content.chains, complex))], returned)
        return tokenized

    def check(self, options: TokenizeOptions) -> None:
        """Raise ModelError if the options need codes that encode motions, and the model's do not."""
        if self._coding is None and (lacking := options.needs_motions):
            raise ModelError(f"the codes of {self.model.name} do not encode motions: it has no {lacking}")

    def tokenize_parsed(
        self, structures: Sequence[tuple[StructureContent, Geometry]], options: TokenizeOptions
    ) -> list[TokenizedStructure]:
        """Tokenize structures that are parsed, in one batch of the device.

        structures: one or more with one or more chains each, and their geometries, from `structure_geometry`. Raises
        ModelError if a vector of any of them is not finite.
        """
        keep = options.assignment is not Assignment.INDEPENDENT
        joined = join_geometries([geometry for _, geometry in structures])
        (codes, distances), vectors = self._engine.tokens_and_vectors(joined, self._embeddings, keep=keep)
        results, start = [], 0
        for content, geometry in structures:
            own = slice(start, start := start + len(geometry.queries))
            codings, codes_of, distances_of = None, codes[own], distances[own]
            if self._coding is not None:
                codes_of, distances_of, codings = coded(
                    content.chains,
                    geometry,
                    codes_of,
                    distances_of,
                    options,
                    self._coding,
                    vectors[own] if keep else None,
                )
            chains = assembled(content.chains, geometry, codes_of, distances_of, self._frameless, options, codings)
            results.append(TokenizedStructure(tuple(chains), content.left_out, content.warnings))
        return results
