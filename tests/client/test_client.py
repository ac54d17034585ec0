"""One structure at a time, by either client."""

import gzip
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import numpy as np
import pytest

from foldmint.v1 import tokenizer_pb2
from foldmint_client import (
    Backbone,
    Cancelled,
    Client,
    DeadlineExceeded,
    FailedPrecondition,
    FieldViolation,
    FoldmintError,
    Health,
    InvalidOptions,
    InvalidStructure,
    Overloaded,
    PermissionDenied,
    Retry,
    ServerError,
    Tls,
    Unauthenticated,
    Unavailable,
    UnreadableInput,
)

if TYPE_CHECKING:
    from tests.client.conftest import Both, Certificates, ScriptedServer

Code = grpc.StatusCode


def fault(server: "ScriptedServer", code: Code, times: int = 1, violations: list[tuple[str, str]] | None = None) -> None:
    from importlib import import_module

    kind = type(server).both.__globals__["Fault"]
    assert import_module
    server.servicer.faults.extend(kind(code, violations=violations or []) for _ in range(times))
