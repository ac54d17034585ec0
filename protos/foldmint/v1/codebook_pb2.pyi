import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ListCodebooksRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListCodebooksResponse(_message.Message):
    __slots__ = ("codebooks",)
    CODEBOOKS_FIELD_NUMBER: _ClassVar[int]
    codebooks: _containers.RepeatedCompositeFieldContainer[CodebookInfo]
    def __init__(self, codebooks: _Optional[_Iterable[_Union[CodebookInfo, _Mapping]]] = ...) -> None: ...

class CodebookInfo(_message.Message):
    __slots__ = ("version", "digest", "active", "kept", "activated", "parent")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    ACTIVE_FIELD_NUMBER: _ClassVar[int]
    KEPT_FIELD_NUMBER: _ClassVar[int]
    ACTIVATED_FIELD_NUMBER: _ClassVar[int]
    PARENT_FIELD_NUMBER: _ClassVar[int]
    version: str
    digest: str
    active: bool
    kept: bool
    activated: _timestamp_pb2.Timestamp
    parent: str
    def __init__(self, version: _Optional[str] = ..., digest: _Optional[str] = ..., active: _Optional[bool] = ..., kept: _Optional[bool] = ..., activated: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., parent: _Optional[str] = ...) -> None: ...

class GetCodebookRequest(_message.Message):
    __slots__ = ("version",)
    VERSION_FIELD_NUMBER: _ClassVar[int]
    version: str
    def __init__(self, version: _Optional[str] = ...) -> None: ...

class GetCodebookResponse(_message.Message):
    __slots__ = ("codebook", "manifest")
    CODEBOOK_FIELD_NUMBER: _ClassVar[int]
    MANIFEST_FIELD_NUMBER: _ClassVar[int]
    codebook: CodebookInfo
    manifest: str
    def __init__(self, codebook: _Optional[_Union[CodebookInfo, _Mapping]] = ..., manifest: _Optional[str] = ...) -> None: ...

class ActivateCodebookRequest(_message.Message):
    __slots__ = ("version",)
    VERSION_FIELD_NUMBER: _ClassVar[int]
    version: str
    def __init__(self, version: _Optional[str] = ...) -> None: ...

class ActivateCodebookResponse(_message.Message):
    __slots__ = ("codebook", "previous_version")
    CODEBOOK_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_VERSION_FIELD_NUMBER: _ClassVar[int]
    codebook: CodebookInfo
    previous_version: str
    def __init__(self, codebook: _Optional[_Union[CodebookInfo, _Mapping]] = ..., previous_version: _Optional[str] = ...) -> None: ...

class RollbackCodebookRequest(_message.Message):
    __slots__ = ("from_version",)
    FROM_VERSION_FIELD_NUMBER: _ClassVar[int]
    from_version: str
    def __init__(self, from_version: _Optional[str] = ...) -> None: ...

class RollbackCodebookResponse(_message.Message):
    __slots__ = ("codebook", "previous_version")
    CODEBOOK_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_VERSION_FIELD_NUMBER: _ClassVar[int]
    codebook: CodebookInfo
    previous_version: str
    def __init__(self, codebook: _Optional[_Union[CodebookInfo, _Mapping]] = ..., previous_version: _Optional[str] = ...) -> None: ...

class GetUsageRequest(_message.Message):
    __slots__ = ("version",)
    VERSION_FIELD_NUMBER: _ClassVar[int]
    version: str
    def __init__(self, version: _Optional[str] = ...) -> None: ...

class GetUsageResponse(_message.Message):
    __slots__ = ("version", "hits", "since", "store")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    HITS_FIELD_NUMBER: _ClassVar[int]
    SINCE_FIELD_NUMBER: _ClassVar[int]
    STORE_FIELD_NUMBER: _ClassVar[int]
    version: str
    hits: _containers.RepeatedScalarFieldContainer[int]
    since: _timestamp_pb2.Timestamp
    store: StoreState
    def __init__(self, version: _Optional[str] = ..., hits: _Optional[_Iterable[int]] = ..., since: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., store: _Optional[_Union[StoreState, _Mapping]] = ...) -> None: ...

class StoreState(_message.Message):
    __slots__ = ("active", "canary", "canary_share", "server_name", "expected", "serving", "follows", "problem", "poll_seconds")
    ACTIVE_FIELD_NUMBER: _ClassVar[int]
    CANARY_FIELD_NUMBER: _ClassVar[int]
    CANARY_SHARE_FIELD_NUMBER: _ClassVar[int]
    SERVER_NAME_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_FIELD_NUMBER: _ClassVar[int]
    SERVING_FIELD_NUMBER: _ClassVar[int]
    FOLLOWS_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    POLL_SECONDS_FIELD_NUMBER: _ClassVar[int]
    active: str
    canary: str
    canary_share: float
    server_name: str
    expected: str
    serving: str
    follows: bool
    problem: str
    poll_seconds: float
    def __init__(self, active: _Optional[str] = ..., canary: _Optional[str] = ..., canary_share: _Optional[float] = ..., server_name: _Optional[str] = ..., expected: _Optional[str] = ..., serving: _Optional[str] = ..., follows: _Optional[bool] = ..., problem: _Optional[str] = ..., poll_seconds: _Optional[float] = ...) -> None: ...

class SampleEmbeddingsRequest(_message.Message):
    __slots__ = ("count",)
    COUNT_FIELD_NUMBER: _ClassVar[int]
    count: int
    def __init__(self, count: _Optional[int] = ...) -> None: ...

class SampleEmbeddingsResponse(_message.Message):
    __slots__ = ("embeddings", "dimensions", "seen", "encoder_digest")
    EMBEDDINGS_FIELD_NUMBER: _ClassVar[int]
    DIMENSIONS_FIELD_NUMBER: _ClassVar[int]
    SEEN_FIELD_NUMBER: _ClassVar[int]
    ENCODER_DIGEST_FIELD_NUMBER: _ClassVar[int]
    embeddings: bytes
    dimensions: int
    seen: int
    encoder_digest: str
    def __init__(self, embeddings: _Optional[bytes] = ..., dimensions: _Optional[int] = ..., seen: _Optional[int] = ..., encoder_digest: _Optional[str] = ...) -> None: ...
