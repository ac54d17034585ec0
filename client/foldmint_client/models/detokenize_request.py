"""What a caller gives to be detokenized, and the request message that it becomes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NoReturn, Protocol, TypedDict, TypeGuard, get_args

import numpy as np
import numpy.typing as npt

from foldmint.v1 import tokenizer_pb2
from foldmint_client.errors import FieldViolation, InvalidOptions, InvalidStructure
from foldmint_client.models.assignment import ASSIGNMENTS, Assignment
from foldmint_client.models.responses import ChainTokens, Tokens
from foldmint_client.models.tokenize_request import FORMATS, check_size

_INT32 = np.iinfo(np.int32)
_UINT32 = np.iinfo(np.uint32)

WrittenFormat = Literal["pdb", "mmcif"]
"""Of files that servers write."""

TokenInput = Tokens | ChainTokens | Sequence[ChainTokens] | npt.NDArray[np.integer] | Sequence[int]
"""The tokens of a structure as `tokenize` returned them, those of one chain or of some, or token ids (length,) with
CHAINBREAK between chains; BOS and EOS may be there or not."""


class Labels(Protocol):
    """What a chain and its residues are called; `ChainTokens`, `DecodedChain` and `ChainLabels` are such."""

    @property
    def chain(self) -> str:
        """The chain's name."""
        ...

    @property
    def sequence(self) -> str:
        """One letter a residue."""
        ...

    @property
    def residue_index(self) -> npt.NDArray[np.integer] | Sequence[int]:
        """The number of each residue, (residues,)."""
        ...

    @property
    def insertion_codes(self) -> str:
        """One character a residue."""
        ...


@dataclass(frozen=True, eq=False)
class ChainLabels:
    """What a chain and its residues are called, in the answer and in a file; all of it may be left out.

    chain: a name; A, B, C, ... by default. sequence: one letter a residue, which gives the file's residue names; X and
    the residue name UNK by default. residue_index: (residues,), integers; 1, 2, 3, ... by default. insertion_codes:
    one character a residue, a space for none. has_frame: (residues,), bool: which residues are not gaps; all by
    default.

    Of models whose codes encode motions: segment_starts: (segments,), the first residue of each segment; by
    default, one begins wherever residue_index neither stays nor grows by one. first_frames: (segments, 12), the first
    frame of each, which places it.
    """

    chain: str = ""
    sequence: str = ""
    residue_index: npt.NDArray[np.integer] | Sequence[int] = ()
    insertion_codes: str = ""
    has_frame: npt.NDArray[np.bool_] | Sequence[bool] = ()
    segment_starts: npt.NDArray[np.integer] | Sequence[int] | None = None
    first_frames: npt.NDArray[np.floating] | None = None


class DetokenizeKeywords(TypedDict, total=False):
    """Keywords of `detokenize`; `DetokenizeOptions` says what they mean."""

    format: WrittenFormat | None
    pae: bool
    labels: Sequence[Labels] | None
    fill: bool
    model: str | None
    codebook_version: str | None
    assignment: Assignment | None


@dataclass(frozen=True)
class DetokenizeOptions:
    """What to return of tokens, and what is known of them.

    format: `pdb` or `mmcif` for a file too, with pLDDT from 0 to 100 in the B-factors. pae: return predicted aligned
    errors, 4 bytes for each pair of residues. labels: one for each chain; those that came with the tokens by default.
    fill: decode the tokens of residues without a frame too, which carry no information; otherwise they are gaps, by the
    `has_frame` of the tokens' chains or, of bare token ids, of the labels. model, codebook_version: of the
    tokens; a server with others rejects them (FailedPrecondition). By default, those of `Tokens`; not checked for bare
    token ids, or if empty. assignment: how the tokens were chosen; by default that of `Tokens`, and independent for
    bare token ids.
    """

    format: WrittenFormat | None = None
    pae: bool = False
    labels: Sequence[Labels] | None = None
    fill: bool = False
    model: str | None = None
    codebook_version: str | None = None
    assignment: Assignment | None = None

    def __post_init__(self) -> None:
        if self.format not in (None, *get_args(WrittenFormat)):
            raise InvalidOptions(f"format is 'pdb', 'mmcif' or None, not {self.format!r}", "format")
        if self.assignment is not None and self.assignment not in ASSIGNMENTS:
            raise InvalidOptions(
                f"assignment is {', '.join(map(repr, ASSIGNMENTS))} or None, not {self.assignment!r}", "assignment"
            )


def needs_chainbreak(tokens: TokenInput) -> bool:
    """Whether there are several chains to be joined, by the CHAINBREAK of the server's vocabulary."""
    chains = _chains(tokens)
    return chains is not None and len(chains) > 1


def to_detokenize_request(
    tokens: TokenInput, options: DetokenizeOptions, chainbreak: int, max_bytes: int
) -> tokenizer_pb2.DetokenizeRequest:
    """The request for tokens. chainbreak: the token between chains; of no matter unless `needs_chainbreak`. max_bytes:
    what a message may hold.

    Raises InvalidStructure for what cannot be sent.
    """
    model = tokens.model if isinstance(tokens, Tokens) else ""
    version = tokens.codebook_version if isinstance(tokens, Tokens) else ""
    chains = _chains(tokens)
    ids = _ids(tokens) if chains is None else _joined(chains, chainbreak)
    labels = options.labels if options.labels is not None else chains or ()
    frames = {} if options.fill else {place: _frames(place, one) for place, one in enumerate(chains or labels)}
    request = tokenizer_pb2.DetokenizeRequest(
        tokens=ids,
        chains=_messages(labels, chains, frames),
        model=model if options.model is None else options.model,
        codebook_version=version if options.codebook_version is None else options.codebook_version,
        options=tokenizer_pb2.DetokenizeOptions(format=FORMATS[options.format], pae=options.pae),
        assignment=_assignment(options.assignment, chains),
    )
    check_size(request, max_bytes, "tokens")
    return request


def _messages(
    labels: Sequence[Labels], chains: Sequence[ChainTokens] | None, frames: Mapping[int, list[bool]]
) -> list[tokenizer_pb2.ChainLabels]:
    """Labels, with their own segments, or else those of the chains."""
    found = []
    for place, label in enumerate(labels):
        message = _to_message(place, label, frames.get(place, []))
        own: object = label
        if not (isinstance(label, ChainTokens | ChainLabels) and label.segment_starts is not None):
            own = chains[place] if chains is not None and place < len(chains) else None
        if isinstance(own, ChainTokens | ChainLabels) and own.segment_starts is not None:
            message.segment_starts.extend(_starts(place, own.segment_starts))
            if own.first_frames is not None:
                message.first_frames = np.asarray(own.first_frames, "<f4").tobytes()
        found.append(message)
    return found


def _starts(place: int, starts: npt.NDArray[np.integer] | Sequence[int]) -> list[int]:
    given = np.asarray(starts)
    if given.ndim != 1 or not np.issubdtype(given.dtype, np.integer) or (given.size and given.min() < 0):
        _refuse(f"chains[{place}].segment_starts", "expected integers from 0 on, of shape (segments,)")
    found: list[int] = given.tolist()
    return found


def _assignment(wanted: Assignment | None, chains: Sequence[ChainTokens] | None) -> "tokenizer_pb2.Assignment":
    """The assignment requested, or that of the chains, which must agree."""
    assignments = {chain.assignment or "independent" for chain in chains or ()} if wanted is None else {wanted}
    if len(assignments) > 1:
        _refuse("assignment", f"the chains' tokens are of several: {', '.join(sorted(assignments))}")
    name = next(iter(assignments), "independent")
    return tokenizer_pb2.ASSIGNMENT_UNSPECIFIED if name == "independent" else ASSIGNMENTS[name]


def _chains(tokens: TokenInput) -> Sequence[ChainTokens] | None:
    """The chains; None for bare token ids."""
    if isinstance(tokens, Tokens):
        return tokens.chains
    if isinstance(tokens, ChainTokens):
        return [tokens]
    return tokens if _are_chains(tokens) else None


def _are_chains(tokens: object) -> TypeGuard[Sequence[ChainTokens]]:
    return isinstance(tokens, Sequence) and len(tokens) > 0 and all(isinstance(one, ChainTokens) for one in tokens)


def _joined(chains: Sequence[ChainTokens], chainbreak: int) -> list[int]:
    joined: list[int] = []
    for place, chain in enumerate(chains):
        joined += [chainbreak] * (place > 0)
        joined += _of_residues(chain)
    return joined


def _of_residues(chain: ChainTokens) -> list[int]:
    """A chain's tokens less the special ones: BOS or CHAINBREAK first, and EOS last if it ends a structure."""
    tokens: list[int] = chain.tokens.tolist()
    special = len(tokens) - len(chain)
    if special not in (0, 1, 2):
        _refuse("tokens", f"chain {chain.chain!r} has {len(tokens)} for {len(chain)} residues")
    return tokens[special > 0 : len(tokens) - (special == 2)]


def _ids(tokens: object) -> list[int]:
    given = np.asarray(tokens)
    if given.ndim != 1:
        _refuse("tokens", f"the shape is {given.shape}; expected (length,)")
    if given.size and not np.issubdtype(given.dtype, np.integer):
        _refuse("tokens", f"the type is {given.dtype}; expected integers")
    wrong = (given < 0) | (given > _UINT32.max)
    if wrong.any():
        _refuse(f"tokens[{wrong.argmax()}]", f"{given[wrong.argmax()]} is not a token id")
    ids: list[int] = given.tolist()
    return ids


def _frames(place: int, chain: Labels) -> list[bool]:
    """Which residues of a chain have a frame; empty if all have, or it is unknown."""
    frames = np.asarray(getattr(chain, "has_frame", ()))
    if frames.size and (frames.ndim != 1 or frames.dtype != np.bool_):
        _refuse(f"chains[{place}].has_frame", "expected a boolean for each residue")
    return [] if frames.all() else frames.tolist()


def _to_message(place: int, label: Labels, has_frame: list[bool]) -> tokenizer_pb2.ChainLabels:
    index = np.asarray(label.residue_index)
    if index.size and not (index.ndim == 1 and np.issubdtype(index.dtype, np.integer)):
        _refuse(f"chains[{place}].residue_index", "expected integers of shape (residues,)")
    if index.size and (index.min() < _INT32.min or index.max() > _INT32.max):
        _refuse(f"chains[{place}].residue_index", "there is a number that 32 bits do not hold")
    return tokenizer_pb2.ChainLabels(
        chain=label.chain,
        sequence=label.sequence,
        residue_index=index.tolist(),
        insertion_codes=label.insertion_codes,
        has_frame=has_frame,
    )


def _refuse(field: str, description: str) -> NoReturn:
    raise InvalidStructure("the tokens cannot be sent", [FieldViolation(field, description)])
