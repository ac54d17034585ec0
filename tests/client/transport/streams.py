"""What tests of streams share: inputs, what came of them, and the types of a scripted stream."""

from collections.abc import Iterator
from typing import Any

import grpc

from foldmint.v1 import tokenizer_pb2

Code = grpc.StatusCode
Requests = Iterator[tokenizer_pb2.TokenizeStreamRequest]
Responses = Iterator[tokenizer_pb2.TokenizeStreamResponse]


def numbers(count: int) -> list[bytes]:
    return [str(number).encode() for number in range(count)]


def firsts(results: list[tuple[Any, Any]]) -> list[tuple[Any, int]]:
    """Keys and first tokens: what the scripted server was sent."""
    return [(key, int(tokens.chains[0].tokens[0])) for key, tokens in results]
