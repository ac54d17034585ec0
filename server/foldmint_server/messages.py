"""Between the contract's messages and the tokenizer's types."""

from collections.abc import Sequence

import numpy as np

from foldmint.v1 import tokenizer_pb2 as pb
from foldmint_tokenizer import Backbone, InvalidStructure, Limits, TokenizedChain, read_backbones
from foldmint_tokenizer.structure import Format, check_size
from foldmint_tokenizer.tokens import TokenizeOptions

_FORMATS: dict[int, Format | None] = {
    pb.STRUCTURE_FORMAT_UNSPECIFIED: None,
    pb.STRUCTURE_FORMAT_PDB: "pdb",
    pb.STRUCTURE_FORMAT_MMCIF: "mmcif",
}
_RESIDUE_BYTES = 3 * 3 * 4


def decoded(request: pb.TokenizeRequest, limits: Limits) -> list[Backbone]:
    """The backbones of a request. Raises InvalidStructure, with the field's whole path."""
    match request.WhichOneof("structure"):
        case "file":
            return _read(request.file, limits)
        case "backbones":
            return _unpacked(request.backbones, limits)
        case _:
            raise InvalidStructure("structure", "neither a file nor backbones are given")


def options_of(request: pb.TokenizeRequest) -> TokenizeOptions:
    """What a request asks to be returned."""
    options = request.options
    return TokenizeOptions(options.complex, options.special_tokens, options.distances)


def encoded(chain: TokenizedChain) -> pb.TokenizedChain:
    """A chain's tokens, as a message."""
    return pb.TokenizedChain(
        chain=chain.chain,
        sequence=chain.sequence,
        residue_index=chain.residue_index.tolist(),
        insertion_codes=chain.insertion_codes,
        tokens=chain.tokens.tolist(),
        has_frame=chain.has_frame.tolist(),
        distances=None if chain.distances is None else chain.distances.tolist(),
    )


def _read(file: pb.StructureFile, limits: Limits) -> list[Backbone]:
    if file.format not in _FORMATS:
        raise InvalidStructure("file.format", f"{file.format} is no format")
    try:
        return read_backbones(
            file.content,
            format=_FORMATS[file.format],
            model_number=file.model_number,
            chains=list(file.chains),
            limits=limits,
        )
    except InvalidStructure as error:
        raise error.within("file.") from error


def _unpacked(backbones: pb.Backbones, limits: Limits) -> list[Backbone]:
    chains: Sequence[pb.Backbone] = backbones.chains
    if not chains:
        raise InvalidStructure("backbones.chains", "there is no chain")
    # Counted before anything is made of them.
    if len(chains) > limits.chains:
        raise InvalidStructure("backbones.chains", f"{len(chains)} chains; at most {limits.chains} are taken")
    decoded_chains = []
    for place, chain in enumerate(chains):
        try:
            decoded_chains.append(_chain(chain))
        except InvalidStructure as error:
            raise error.within(f"backbones.chains[{place}].") from error
    check_size(decoded_chains, limits, "backbones.chains")
    return decoded_chains


def _chain(chain: pb.Backbone) -> Backbone:
    residues, rest = divmod(len(chain.coordinates), _RESIDUE_BYTES)
    if rest:
        raise InvalidStructure(
            "coordinates",
            f"{len(chain.coordinates)} bytes are no multiple of {_RESIDUE_BYTES}, the size of a residue's",
            chain=chain.chain,
        )
    numbers = chain.residue_index
    return Backbone(
        chain=chain.chain,
        sequence=chain.sequence or "X" * residues,
        residue_index=(
            np.fromiter(numbers, np.int64, len(numbers)) if numbers else np.arange(1, residues + 1, dtype=np.int64)
        ),
        coordinates=np.frombuffer(chain.coordinates, "<f4").astype(np.float32).reshape(-1, 3, 3),
    )
