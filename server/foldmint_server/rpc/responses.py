"""Builds the messages of responses from the tokenizer's types."""

from foldmint.v1 import tokenizer_pb2 as pb
from foldmint_server.rpc.requests import ParsedTokens, option_errors
from foldmint_tokenizer import (
    Assignment,
    DecodedChain,
    DecodedStructure,
    LeftOut,
    TokenizedChain,
    structure_text,
)
from foldmint_tokenizer.structure.chain_labels import CompleteLabels
from foldmint_tokenizer.structure.options import Reading

_NUMBERS = {
    Assignment.INDEPENDENT: pb.ASSIGNMENT_INDEPENDENT,
    Assignment.ANCHORED: pb.ASSIGNMENT_ANCHORED,
    Assignment.TRACKING: pb.ASSIGNMENT_TRACKING,
}


def chain_message(chain: TokenizedChain) -> pb.TokenizedChain:
    """A chain's tokens, as a message."""
    motions = chain.segment_starts is not None
    return pb.TokenizedChain(
        chain=chain.chain,
        sequence=chain.sequence,
        residue_index=chain.residue_index.tolist(),
        insertion_codes=chain.insertion_codes,
        tokens=chain.tokens.tolist(),
        has_frame=chain.has_frame.tolist(),
        distances=None if chain.distances is None else chain.distances.tolist(),
        assignment=_NUMBERS[chain.assignment] if motions else pb.ASSIGNMENT_UNSPECIFIED,
        segment_starts=None if chain.segment_starts is None else chain.segment_starts.tolist(),
        first_frames=b"" if chain.first_frames is None else chain.first_frames.astype("<f4").tobytes(),
        composed_rmsd=chain.composed_rmsd,
    )


def left_out_message(left_out: LeftOut) -> pb.LeftOut:
    """What was left out, as a message."""
    return pb.LeftOut(
        kind=f"LEFT_OUT_KIND_{left_out.kind.name}",
        chain=left_out.chain,
        residues=left_out.residues,
        names=left_out.names,
        of_protein=left_out.of_protein,
    )


def reading_name(reading: Reading | None) -> str:
    """A reading, by its name in the contract."""
    return "READING_UNSPECIFIED" if reading is None else f"READING_{reading.upper()}"


def detokenize_response(
    structure: DecodedStructure, wanted: ParsedTokens, request: pb.DetokenizeRequest, model: str, codebook_version: str
) -> pb.DetokenizeResponse:
    """The response with a decoded structure. Raises InvalidStructure if the file cannot hold it."""
    text = ""
    if wanted.format is not None:
        with option_errors():
            text = structure_text(
                structure, wanted.format, wanted.labels, origin=f"{model}, codebook {codebook_version}"
            )
    return pb.DetokenizeResponse(
        model=model,
        codebook_version=codebook_version,
        chains=[
            _decoded_chain_message(chain, label, not request.options.omit_coordinates)
            for chain, label in zip(structure.chains, wanted.labels, strict=True)
        ],
        ptm=structure.ptm,
        pae=b"" if structure.pae is None else structure.pae.astype("<f4").tobytes(),
        file=text.encode(),
    )


def _decoded_chain_message(chain: DecodedChain, label: CompleteLabels, coordinates: bool) -> pb.DecodedChain:
    return pb.DecodedChain(
        chain=label.chain,
        sequence=label.sequence,
        residue_index=label.residue_index.tolist(),
        insertion_codes=label.insertion_codes,
        coordinates=chain.coordinates.astype("<f4").tobytes() if coordinates else b"",
        plddt=chain.plddt.tolist(),
        segment_starts=chain.segment_starts.tolist(),
        placed=chain.placed.tolist(),
    )
