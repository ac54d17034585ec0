from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class StructureFormat(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    STRUCTURE_FORMAT_UNSPECIFIED: _ClassVar[StructureFormat]
    STRUCTURE_FORMAT_PDB: _ClassVar[StructureFormat]
    STRUCTURE_FORMAT_MMCIF: _ClassVar[StructureFormat]
    STRUCTURE_FORMAT_BCIF: _ClassVar[StructureFormat]

class Reading(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    READING_UNSPECIFIED: _ClassVar[Reading]
    READING_ALL: _ClassVar[Reading]
    READING_ESM: _ClassVar[Reading]

class Assignment(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ASSIGNMENT_UNSPECIFIED: _ClassVar[Assignment]
    ASSIGNMENT_INDEPENDENT: _ClassVar[Assignment]
    ASSIGNMENT_ANCHORED: _ClassVar[Assignment]
    ASSIGNMENT_TRACKING: _ClassVar[Assignment]

class LeftOutKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LEFT_OUT_KIND_UNSPECIFIED: _ClassVar[LeftOutKind]
    LEFT_OUT_KIND_WATER: _ClassVar[LeftOutKind]
    LEFT_OUT_KIND_ION: _ClassVar[LeftOutKind]
    LEFT_OUT_KIND_LIGAND: _ClassVar[LeftOutKind]
    LEFT_OUT_KIND_NUCLEIC_ACID: _ClassVar[LeftOutKind]
    LEFT_OUT_KIND_CAP: _ClassVar[LeftOutKind]
    LEFT_OUT_KIND_ALTERNATE: _ClassVar[LeftOutKind]
    LEFT_OUT_KIND_OTHER_MODEL: _ClassVar[LeftOutKind]
    LEFT_OUT_KIND_OTHER_BLOCK: _ClassVar[LeftOutKind]
    LEFT_OUT_KIND_OTHER_CHAIN: _ClassVar[LeftOutKind]
    LEFT_OUT_KIND_WITHOUT_CA: _ClassVar[LeftOutKind]
    LEFT_OUT_KIND_HETATM: _ClassVar[LeftOutKind]
STRUCTURE_FORMAT_UNSPECIFIED: StructureFormat
STRUCTURE_FORMAT_PDB: StructureFormat
STRUCTURE_FORMAT_MMCIF: StructureFormat
STRUCTURE_FORMAT_BCIF: StructureFormat
READING_UNSPECIFIED: Reading
READING_ALL: Reading
READING_ESM: Reading
ASSIGNMENT_UNSPECIFIED: Assignment
ASSIGNMENT_INDEPENDENT: Assignment
ASSIGNMENT_ANCHORED: Assignment
ASSIGNMENT_TRACKING: Assignment
LEFT_OUT_KIND_UNSPECIFIED: LeftOutKind
LEFT_OUT_KIND_WATER: LeftOutKind
LEFT_OUT_KIND_ION: LeftOutKind
LEFT_OUT_KIND_LIGAND: LeftOutKind
LEFT_OUT_KIND_NUCLEIC_ACID: LeftOutKind
LEFT_OUT_KIND_CAP: LeftOutKind
LEFT_OUT_KIND_ALTERNATE: LeftOutKind
LEFT_OUT_KIND_OTHER_MODEL: LeftOutKind
LEFT_OUT_KIND_OTHER_BLOCK: LeftOutKind
LEFT_OUT_KIND_OTHER_CHAIN: LeftOutKind
LEFT_OUT_KIND_WITHOUT_CA: LeftOutKind
LEFT_OUT_KIND_HETATM: LeftOutKind

class StructureFile(_message.Message):
    __slots__ = ("content", "format", "model_number", "chains", "reading", "min_plddt", "assembly", "renumber")
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    MODEL_NUMBER_FIELD_NUMBER: _ClassVar[int]
    CHAINS_FIELD_NUMBER: _ClassVar[int]
    READING_FIELD_NUMBER: _ClassVar[int]
    MIN_PLDDT_FIELD_NUMBER: _ClassVar[int]
    ASSEMBLY_FIELD_NUMBER: _ClassVar[int]
    RENUMBER_FIELD_NUMBER: _ClassVar[int]
    content: bytes
    format: StructureFormat
    model_number: int
    chains: _containers.RepeatedScalarFieldContainer[str]
    reading: Reading
    min_plddt: float
    assembly: str
    renumber: bool
    def __init__(self, content: _Optional[bytes] = ..., format: _Optional[_Union[StructureFormat, str]] = ..., model_number: _Optional[int] = ..., chains: _Optional[_Iterable[str]] = ..., reading: _Optional[_Union[Reading, str]] = ..., min_plddt: _Optional[float] = ..., assembly: _Optional[str] = ..., renumber: _Optional[bool] = ...) -> None: ...

class Backbone(_message.Message):
    __slots__ = ("chain", "coordinates", "residue_index", "sequence")
    CHAIN_FIELD_NUMBER: _ClassVar[int]
    COORDINATES_FIELD_NUMBER: _ClassVar[int]
    RESIDUE_INDEX_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    chain: str
    coordinates: bytes
    residue_index: _containers.RepeatedScalarFieldContainer[int]
    sequence: str
    def __init__(self, chain: _Optional[str] = ..., coordinates: _Optional[bytes] = ..., residue_index: _Optional[_Iterable[int]] = ..., sequence: _Optional[str] = ...) -> None: ...

class Backbones(_message.Message):
    __slots__ = ("chains",)
    CHAINS_FIELD_NUMBER: _ClassVar[int]
    chains: _containers.RepeatedCompositeFieldContainer[Backbone]
    def __init__(self, chains: _Optional[_Iterable[_Union[Backbone, _Mapping]]] = ...) -> None: ...

class TokenizeRequest(_message.Message):
    __slots__ = ("file", "backbones", "options", "codebook_version")
    FILE_FIELD_NUMBER: _ClassVar[int]
    BACKBONES_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    CODEBOOK_VERSION_FIELD_NUMBER: _ClassVar[int]
    file: StructureFile
    backbones: Backbones
    options: TokenizeOptions
    codebook_version: str
    def __init__(self, file: _Optional[_Union[StructureFile, _Mapping]] = ..., backbones: _Optional[_Union[Backbones, _Mapping]] = ..., options: _Optional[_Union[TokenizeOptions, _Mapping]] = ..., codebook_version: _Optional[str] = ...) -> None: ...

class TokenizeOptions(_message.Message):
    __slots__ = ("complex", "special_tokens", "distances", "assignment", "first_frames")
    COMPLEX_FIELD_NUMBER: _ClassVar[int]
    SPECIAL_TOKENS_FIELD_NUMBER: _ClassVar[int]
    DISTANCES_FIELD_NUMBER: _ClassVar[int]
    ASSIGNMENT_FIELD_NUMBER: _ClassVar[int]
    FIRST_FRAMES_FIELD_NUMBER: _ClassVar[int]
    complex: bool
    special_tokens: bool
    distances: bool
    assignment: Assignment
    first_frames: bool
    def __init__(self, complex: _Optional[bool] = ..., special_tokens: _Optional[bool] = ..., distances: _Optional[bool] = ..., assignment: _Optional[_Union[Assignment, str]] = ..., first_frames: _Optional[bool] = ...) -> None: ...

class TokenizeResponse(_message.Message):
    __slots__ = ("model", "codebook_version", "chains", "left_out", "warnings", "reading", "codebook_digest", "encoder_digest")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    CODEBOOK_VERSION_FIELD_NUMBER: _ClassVar[int]
    CHAINS_FIELD_NUMBER: _ClassVar[int]
    LEFT_OUT_FIELD_NUMBER: _ClassVar[int]
    WARNINGS_FIELD_NUMBER: _ClassVar[int]
    READING_FIELD_NUMBER: _ClassVar[int]
    CODEBOOK_DIGEST_FIELD_NUMBER: _ClassVar[int]
    ENCODER_DIGEST_FIELD_NUMBER: _ClassVar[int]
    model: str
    codebook_version: str
    chains: _containers.RepeatedCompositeFieldContainer[TokenizedChain]
    left_out: _containers.RepeatedCompositeFieldContainer[LeftOut]
    warnings: _containers.RepeatedScalarFieldContainer[str]
    reading: Reading
    codebook_digest: str
    encoder_digest: str
    def __init__(self, model: _Optional[str] = ..., codebook_version: _Optional[str] = ..., chains: _Optional[_Iterable[_Union[TokenizedChain, _Mapping]]] = ..., left_out: _Optional[_Iterable[_Union[LeftOut, _Mapping]]] = ..., warnings: _Optional[_Iterable[str]] = ..., reading: _Optional[_Union[Reading, str]] = ..., codebook_digest: _Optional[str] = ..., encoder_digest: _Optional[str] = ...) -> None: ...

class LeftOut(_message.Message):
    __slots__ = ("kind", "chain", "residues", "names", "of_protein")
    KIND_FIELD_NUMBER: _ClassVar[int]
    CHAIN_FIELD_NUMBER: _ClassVar[int]
    RESIDUES_FIELD_NUMBER: _ClassVar[int]
    NAMES_FIELD_NUMBER: _ClassVar[int]
    OF_PROTEIN_FIELD_NUMBER: _ClassVar[int]
    kind: LeftOutKind
    chain: str
    residues: int
    names: _containers.RepeatedScalarFieldContainer[str]
    of_protein: bool
    def __init__(self, kind: _Optional[_Union[LeftOutKind, str]] = ..., chain: _Optional[str] = ..., residues: _Optional[int] = ..., names: _Optional[_Iterable[str]] = ..., of_protein: _Optional[bool] = ...) -> None: ...

class TokenizedChain(_message.Message):
    __slots__ = ("chain", "sequence", "residue_index", "insertion_codes", "tokens", "has_frame", "distances", "assignment", "segment_starts", "first_frames", "composed_rmsd")
    CHAIN_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    RESIDUE_INDEX_FIELD_NUMBER: _ClassVar[int]
    INSERTION_CODES_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    HAS_FRAME_FIELD_NUMBER: _ClassVar[int]
    DISTANCES_FIELD_NUMBER: _ClassVar[int]
    ASSIGNMENT_FIELD_NUMBER: _ClassVar[int]
    SEGMENT_STARTS_FIELD_NUMBER: _ClassVar[int]
    FIRST_FRAMES_FIELD_NUMBER: _ClassVar[int]
    COMPOSED_RMSD_FIELD_NUMBER: _ClassVar[int]
    chain: str
    sequence: str
    residue_index: _containers.RepeatedScalarFieldContainer[int]
    insertion_codes: str
    tokens: _containers.RepeatedScalarFieldContainer[int]
    has_frame: _containers.RepeatedScalarFieldContainer[bool]
    distances: _containers.RepeatedScalarFieldContainer[float]
    assignment: Assignment
    segment_starts: _containers.RepeatedScalarFieldContainer[int]
    first_frames: bytes
    composed_rmsd: float
    def __init__(self, chain: _Optional[str] = ..., sequence: _Optional[str] = ..., residue_index: _Optional[_Iterable[int]] = ..., insertion_codes: _Optional[str] = ..., tokens: _Optional[_Iterable[int]] = ..., has_frame: _Optional[_Iterable[bool]] = ..., distances: _Optional[_Iterable[float]] = ..., assignment: _Optional[_Union[Assignment, str]] = ..., segment_starts: _Optional[_Iterable[int]] = ..., first_frames: _Optional[bytes] = ..., composed_rmsd: _Optional[float] = ...) -> None: ...

class TokenizeStreamRequest(_message.Message):
    __slots__ = ("id", "request")
    ID_FIELD_NUMBER: _ClassVar[int]
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    id: int
    request: TokenizeRequest
    def __init__(self, id: _Optional[int] = ..., request: _Optional[_Union[TokenizeRequest, _Mapping]] = ...) -> None: ...

class TokenizeStreamResponse(_message.Message):
    __slots__ = ("id", "response", "failure")
    ID_FIELD_NUMBER: _ClassVar[int]
    RESPONSE_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    id: int
    response: TokenizeResponse
    failure: Failure
    def __init__(self, id: _Optional[int] = ..., response: _Optional[_Union[TokenizeResponse, _Mapping]] = ..., failure: _Optional[_Union[Failure, _Mapping]] = ...) -> None: ...

class Failure(_message.Message):
    __slots__ = ("code", "message", "violations")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    VIOLATIONS_FIELD_NUMBER: _ClassVar[int]
    code: int
    message: str
    violations: _containers.RepeatedCompositeFieldContainer[FieldViolation]
    def __init__(self, code: _Optional[int] = ..., message: _Optional[str] = ..., violations: _Optional[_Iterable[_Union[FieldViolation, _Mapping]]] = ...) -> None: ...

class FieldViolation(_message.Message):
    __slots__ = ("field", "description")
    FIELD_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    field: str
    description: str
    def __init__(self, field: _Optional[str] = ..., description: _Optional[str] = ...) -> None: ...

class DetokenizeRequest(_message.Message):
    __slots__ = ("tokens", "chains", "model", "codebook_version", "options", "assignment")
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    CHAINS_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    CODEBOOK_VERSION_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    ASSIGNMENT_FIELD_NUMBER: _ClassVar[int]
    tokens: _containers.RepeatedScalarFieldContainer[int]
    chains: _containers.RepeatedCompositeFieldContainer[ChainLabels]
    model: str
    codebook_version: str
    options: DetokenizeOptions
    assignment: Assignment
    def __init__(self, tokens: _Optional[_Iterable[int]] = ..., chains: _Optional[_Iterable[_Union[ChainLabels, _Mapping]]] = ..., model: _Optional[str] = ..., codebook_version: _Optional[str] = ..., options: _Optional[_Union[DetokenizeOptions, _Mapping]] = ..., assignment: _Optional[_Union[Assignment, str]] = ...) -> None: ...

class ChainLabels(_message.Message):
    __slots__ = ("chain", "sequence", "residue_index", "insertion_codes", "has_frame", "segment_starts", "first_frames")
    CHAIN_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    RESIDUE_INDEX_FIELD_NUMBER: _ClassVar[int]
    INSERTION_CODES_FIELD_NUMBER: _ClassVar[int]
    HAS_FRAME_FIELD_NUMBER: _ClassVar[int]
    SEGMENT_STARTS_FIELD_NUMBER: _ClassVar[int]
    FIRST_FRAMES_FIELD_NUMBER: _ClassVar[int]
    chain: str
    sequence: str
    residue_index: _containers.RepeatedScalarFieldContainer[int]
    insertion_codes: str
    has_frame: _containers.RepeatedScalarFieldContainer[bool]
    segment_starts: _containers.RepeatedScalarFieldContainer[int]
    first_frames: bytes
    def __init__(self, chain: _Optional[str] = ..., sequence: _Optional[str] = ..., residue_index: _Optional[_Iterable[int]] = ..., insertion_codes: _Optional[str] = ..., has_frame: _Optional[_Iterable[bool]] = ..., segment_starts: _Optional[_Iterable[int]] = ..., first_frames: _Optional[bytes] = ...) -> None: ...

class DetokenizeOptions(_message.Message):
    __slots__ = ("omit_coordinates", "format", "pae")
    OMIT_COORDINATES_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    PAE_FIELD_NUMBER: _ClassVar[int]
    omit_coordinates: bool
    format: StructureFormat
    pae: bool
    def __init__(self, omit_coordinates: _Optional[bool] = ..., format: _Optional[_Union[StructureFormat, str]] = ..., pae: _Optional[bool] = ...) -> None: ...

class DetokenizeResponse(_message.Message):
    __slots__ = ("model", "codebook_version", "chains", "ptm", "pae", "file")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    CODEBOOK_VERSION_FIELD_NUMBER: _ClassVar[int]
    CHAINS_FIELD_NUMBER: _ClassVar[int]
    PTM_FIELD_NUMBER: _ClassVar[int]
    PAE_FIELD_NUMBER: _ClassVar[int]
    FILE_FIELD_NUMBER: _ClassVar[int]
    model: str
    codebook_version: str
    chains: _containers.RepeatedCompositeFieldContainer[DecodedChain]
    ptm: float
    pae: bytes
    file: bytes
    def __init__(self, model: _Optional[str] = ..., codebook_version: _Optional[str] = ..., chains: _Optional[_Iterable[_Union[DecodedChain, _Mapping]]] = ..., ptm: _Optional[float] = ..., pae: _Optional[bytes] = ..., file: _Optional[bytes] = ...) -> None: ...

class DecodedChain(_message.Message):
    __slots__ = ("chain", "sequence", "residue_index", "insertion_codes", "coordinates", "plddt", "segment_starts", "placed")
    CHAIN_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    RESIDUE_INDEX_FIELD_NUMBER: _ClassVar[int]
    INSERTION_CODES_FIELD_NUMBER: _ClassVar[int]
    COORDINATES_FIELD_NUMBER: _ClassVar[int]
    PLDDT_FIELD_NUMBER: _ClassVar[int]
    SEGMENT_STARTS_FIELD_NUMBER: _ClassVar[int]
    PLACED_FIELD_NUMBER: _ClassVar[int]
    chain: str
    sequence: str
    residue_index: _containers.RepeatedScalarFieldContainer[int]
    insertion_codes: str
    coordinates: bytes
    plddt: _containers.RepeatedScalarFieldContainer[float]
    segment_starts: _containers.RepeatedScalarFieldContainer[int]
    placed: _containers.RepeatedScalarFieldContainer[bool]
    def __init__(self, chain: _Optional[str] = ..., sequence: _Optional[str] = ..., residue_index: _Optional[_Iterable[int]] = ..., insertion_codes: _Optional[str] = ..., coordinates: _Optional[bytes] = ..., plddt: _Optional[_Iterable[float]] = ..., segment_starts: _Optional[_Iterable[int]] = ..., placed: _Optional[_Iterable[bool]] = ...) -> None: ...

class GetModelRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetModelResponse(_message.Message):
    __slots__ = ("model", "encoder_digest", "codebook_version", "codebook_digest", "sizes", "vocabulary", "limits", "server_version", "decoder", "default_reading", "motion")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    ENCODER_DIGEST_FIELD_NUMBER: _ClassVar[int]
    CODEBOOK_VERSION_FIELD_NUMBER: _ClassVar[int]
    CODEBOOK_DIGEST_FIELD_NUMBER: _ClassVar[int]
    SIZES_FIELD_NUMBER: _ClassVar[int]
    VOCABULARY_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    SERVER_VERSION_FIELD_NUMBER: _ClassVar[int]
    DECODER_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_READING_FIELD_NUMBER: _ClassVar[int]
    MOTION_FIELD_NUMBER: _ClassVar[int]
    model: str
    encoder_digest: str
    codebook_version: str
    codebook_digest: str
    sizes: ModelSizes
    vocabulary: Vocabulary
    limits: RequestLimits
    server_version: str
    decoder: DecoderInfo
    default_reading: Reading
    motion: MotionInfo
    def __init__(self, model: _Optional[str] = ..., encoder_digest: _Optional[str] = ..., codebook_version: _Optional[str] = ..., codebook_digest: _Optional[str] = ..., sizes: _Optional[_Union[ModelSizes, _Mapping]] = ..., vocabulary: _Optional[_Union[Vocabulary, _Mapping]] = ..., limits: _Optional[_Union[RequestLimits, _Mapping]] = ..., server_version: _Optional[str] = ..., decoder: _Optional[_Union[DecoderInfo, _Mapping]] = ..., default_reading: _Optional[_Union[Reading, str]] = ..., motion: _Optional[_Union[MotionInfo, _Mapping]] = ...) -> None: ...

class ModelSizes(_message.Message):
    __slots__ = ("width", "heads", "layers", "out", "codes")
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEADS_FIELD_NUMBER: _ClassVar[int]
    LAYERS_FIELD_NUMBER: _ClassVar[int]
    OUT_FIELD_NUMBER: _ClassVar[int]
    CODES_FIELD_NUMBER: _ClassVar[int]
    width: int
    heads: int
    layers: int
    out: int
    codes: int
    def __init__(self, width: _Optional[int] = ..., heads: _Optional[int] = ..., layers: _Optional[int] = ..., out: _Optional[int] = ..., codes: _Optional[int] = ...) -> None: ...

class DecoderInfo(_message.Message):
    __slots__ = ("digest", "width", "heads", "layers", "chained", "reads_vectors")
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEADS_FIELD_NUMBER: _ClassVar[int]
    LAYERS_FIELD_NUMBER: _ClassVar[int]
    CHAINED_FIELD_NUMBER: _ClassVar[int]
    READS_VECTORS_FIELD_NUMBER: _ClassVar[int]
    digest: str
    width: int
    heads: int
    layers: int
    chained: bool
    reads_vectors: bool
    def __init__(self, digest: _Optional[str] = ..., width: _Optional[int] = ..., heads: _Optional[int] = ..., layers: _Optional[int] = ..., chained: _Optional[bool] = ..., reads_vectors: _Optional[bool] = ...) -> None: ...

class MotionInfo(_message.Message):
    __slots__ = ("lever",)
    LEVER_FIELD_NUMBER: _ClassVar[int]
    lever: float
    def __init__(self, lever: _Optional[float] = ...) -> None: ...

class Vocabulary(_message.Message):
    __slots__ = ("codes", "mask", "eos", "bos", "pad", "chainbreak")
    CODES_FIELD_NUMBER: _ClassVar[int]
    MASK_FIELD_NUMBER: _ClassVar[int]
    EOS_FIELD_NUMBER: _ClassVar[int]
    BOS_FIELD_NUMBER: _ClassVar[int]
    PAD_FIELD_NUMBER: _ClassVar[int]
    CHAINBREAK_FIELD_NUMBER: _ClassVar[int]
    codes: int
    mask: int
    eos: int
    bos: int
    pad: int
    chainbreak: int
    def __init__(self, codes: _Optional[int] = ..., mask: _Optional[int] = ..., eos: _Optional[int] = ..., bos: _Optional[int] = ..., pad: _Optional[int] = ..., chainbreak: _Optional[int] = ...) -> None: ...

class RequestLimits(_message.Message):
    __slots__ = ("residues", "chains", "unpacked_bytes", "message_bytes", "detokenize_residues")
    RESIDUES_FIELD_NUMBER: _ClassVar[int]
    CHAINS_FIELD_NUMBER: _ClassVar[int]
    UNPACKED_BYTES_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_BYTES_FIELD_NUMBER: _ClassVar[int]
    DETOKENIZE_RESIDUES_FIELD_NUMBER: _ClassVar[int]
    residues: int
    chains: int
    unpacked_bytes: int
    message_bytes: int
    detokenize_residues: int
    def __init__(self, residues: _Optional[int] = ..., chains: _Optional[int] = ..., unpacked_bytes: _Optional[int] = ..., message_bytes: _Optional[int] = ..., detokenize_residues: _Optional[int] = ...) -> None: ...
