"""Client of a Foldmint server: protein structures in, structure tokens out, and back.

from foldmint_client import Client
with Client("localhost:50051") as client:
    tokens = client.tokenize("1crn.cif")
    print(tokens.chains[0].tokens, client.detokenize(tokens).chains[0].coordinates)

The names below are imported when they are first used, so that importing the package costs next to nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from foldmint_client.admin import Activation, CodebookAdmin, CodebookInfo, CodebookUsage, EmbeddingSample
    from foldmint_client.async_client import AsyncClient
    from foldmint_client.client import Client
    from foldmint_client.connection import Retry, Tls
    from foldmint_client.errors import (
        Cancelled,
        DeadlineExceeded,
        FailedPrecondition,
        FieldViolation,
        FoldmintError,
        InvalidOptions,
        InvalidStructure,
        MissingExtra,
        NotFound,
        Overloaded,
        PermissionDenied,
        ServerError,
        Unauthenticated,
        Unavailable,
        UnreadableInput,
    )
    from foldmint_client.models.decoded import Decoded, DecodedChain
    from foldmint_client.models.detokenize_request import ChainLabels
    from foldmint_client.models.job_version import JobVersion
    from foldmint_client.models.left_out import LeftOut, LeftOutKind
    from foldmint_client.models.responses import (
        ChainTokens,
        DecoderInfo,
        Health,
        ModelInfo,
        ModelSizes,
        RequestLimits,
        Tokens,
        Vocabulary,
    )
    from foldmint_client.models.tokenize_request import Backbone, Selection, Structure

__all__ = [
    "Activation",
    "AsyncClient",
    "Backbone",
    "Cancelled",
    "ChainLabels",
    "ChainTokens",
    "Client",
    "CodebookAdmin",
    "CodebookInfo",
    "CodebookUsage",
    "DeadlineExceeded",
    "Decoded",
    "DecodedChain",
    "DecoderInfo",
    "EmbeddingSample",
    "FailedPrecondition",
    "FieldViolation",
    "FoldmintError",
    "Health",
    "InvalidOptions",
    "InvalidStructure",
    "JobVersion",
    "LeftOut",
    "LeftOutKind",
    "MissingExtra",
    "ModelInfo",
    "ModelSizes",
    "NotFound",
    "Overloaded",
    "PermissionDenied",
    "RequestLimits",
    "Retry",
    "Selection",
    "ServerError",
    "Structure",
    "Tls",
    "Tokens",
    "Unauthenticated",
    "Unavailable",
    "UnreadableInput",
    "Vocabulary",
]

_HOMES = {
    "Activation": "admin",
    "CodebookAdmin": "admin",
    "CodebookInfo": "admin",
    "CodebookUsage": "admin",
    "EmbeddingSample": "admin",
    "AsyncClient": "async_client",
    "Client": "client",
    "Decoded": "models.decoded",
    "DecodedChain": "models.decoded",
    "ChainLabels": "models.detokenize_request",
    "JobVersion": "models.job_version",
    "LeftOut": "models.left_out",
    "LeftOutKind": "models.left_out",
    "Retry": "connection",
    "Tls": "connection",
    "Backbone": "models.tokenize_request",
    "Selection": "models.tokenize_request",
    "Structure": "models.tokenize_request",
    "ChainTokens": "models.responses",
    "DecoderInfo": "models.responses",
    "Health": "models.responses",
    "ModelInfo": "models.responses",
    "ModelSizes": "models.responses",
    "RequestLimits": "models.responses",
    "Tokens": "models.responses",
    "Vocabulary": "models.responses",
}  # all others: errors


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f"{__name__}.{_HOMES.get(name, 'errors')}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
