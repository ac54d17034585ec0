"""ESM's own way from a file to tokens: esm==3.2.1.post1 with biotite, and an encoder of random weights."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from foldmint_tokenizer.codebook import Codebook
from foldmint_tokenizer.encoder import Encoder
from foldmint_tokenizer.engine import Engine
from foldmint_tokenizer.model import CodebookVersion, Model
from foldmint_tokenizer.neighborhoods import build_geometry
from foldmint_tokenizer.sizes import ModelConfig
from foldmint_tokenizer.tokenizer import StructureTokenizer
from helpers.reference import reference_packages

SMALL = ModelConfig(width=128, heads=16, layers=2, out=32)


@dataclass(frozen=True)
class EsmChain:
    """ESM's `ProteinChain`, as far as it reaches the encoder. coordinates: (residues, 3, 3), NaN where missing."""

    name: str
    sequence: str
    numbers: NDArray[np.int64]
    insertion_codes: list[str]
    coordinates: NDArray[np.float32]
    inputs: tuple[torch.Tensor, torch.Tensor]
    renumbered: torch.Tensor


def read(text: str, *, is_cif: bool) -> list[EsmChain]:
    """Each chain of a file's first model as `ProteinChain.from_pdb(path, chain_id=name)` gives it, but empty ones.

    Raises whatever ESM and biotite raise.
    """
    with reference_packages():
        from biotite.structure.io import pdb, pdbx
        from esm.utils.structure.protein_chain import ProteinChain

        if is_cif:
            table = pdbx.get_structure(pdbx.CIFFile.read(io.StringIO(text)), model=1)
            table.box = None
            written = pdb.PDBFile()
            written.set_structure(table)
            buffer = io.StringIO()
            written.write(buffer)
            text = buffer.getvalue()
        else:
            table = pdb.PDBFile.read(io.StringIO(text)).get_structure(model=1)
        names = list(dict.fromkeys(table.chain_id.tolist()))
        chains = [ProteinChain.from_pdb(io.StringIO(text), chain_id=name) for name in names]
        return [_chain(ProteinChain, chain) for chain in chains if len(chain)]


def _chain(protein_chain: Any, chain: Any) -> EsmChain:
    coordinates, _, numbers = chain.to_structure_encoder_inputs()
    # What `ESM3.encode` does with an `ESMProtein`: only coordinates and letters reach its encoder.
    again = protein_chain.from_atom37(torch.tensor(chain.atom37_positions), sequence=chain.sequence)
    return EsmChain(
        chain.chain_id,
        chain.sequence,
        chain.residue_index,
        [str(code) for code in chain.insertion_code],
        chain.atom37_positions[:, :3].astype(np.float32),
        (coordinates, numbers),
        again.to_structure_encoder_inputs()[2],
    )


@dataclass(frozen=True)
class Pair:
    """ESM's encoder, and ours with its weights."""

    reference: Any
    tokenizer: StructureTokenizer

    def expected(self, coordinates: torch.Tensor, numbers: torch.Tensor) -> NDArray[np.int64]:
        """ESM's codes, (residues,), of a batch of one chain."""
        with torch.no_grad():
            _, codes = self.reference.encode(coordinates, residue_index=numbers)
        result: NDArray[np.int64] = codes[0].numpy()
        return result


def pair(
    reference_class: Any,
    sample: Sequence[tuple[NDArray[np.float32], NDArray[np.int64]]],
    config: ModelConfig = SMALL,
) -> Pair:
    """Random weights, and codes that are vectors of real residues, so that thousands of them are in use.

    sample: of chains, coordinates (residues, 3, 3) and residue numbers, whose vectors become the codes.
    """
    torch.manual_seed(0)
    reference = reference_class(config.width, 1, config.heads, config.layers, config.out, config.codes).eval()
    with torch.no_grad():
        for name, parameter in reference.named_parameters():
            if "scale_per_head" in name:
                parameter.normal_()  # zero at birth, which would hide a mix-up of heads
        reference.relative_positional_embedding.embedding.weight.normal_()
        reference.pre_vq_proj.weight.mul_(10)
    encoder = Encoder(config)
    state = {name: value for name, value in reference.state_dict().items() if not name.startswith("codebook.")}
    assert state.keys() == encoder.state_dict().keys()
    encoder.load_state_dict(state)
    engine = Engine(encoder)
    rows = [build_geometry(coordinates, numbers).rows(slice(None)) for coordinates, numbers in sample]
    z = torch.cat([engine.vectors(part) for part in rows])
    # Centered: products far from zero cancel, in the reference as well as here.
    shift = z.mean(0)
    with torch.no_grad():
        encoder.pre_vq_proj.bias.sub_(shift)
        reference.pre_vq_proj.bias.sub_(shift)
    far = torch.full((max(0, config.codes - len(z)), config.out), 1e4)
    chosen = torch.randperm(len(z))[: config.codes]
    reference.codebook.embeddings.copy_(torch.cat([z[chosen] - shift, far]))
    codebook = Codebook(reference.codebook.embeddings.clone(), torch.ones(config.codes), z.new_zeros(0))
    model = Model("random", config, encoder, "-", CodebookVersion("-", "-", codebook))
    return Pair(reference, StructureTokenizer(model))
