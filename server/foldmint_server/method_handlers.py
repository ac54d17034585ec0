"""Wraps gRPC's method handlers, of all four kinds in the same way; every interceptor of the server uses it."""

import inspect
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, aclosing
from typing import Any

import grpc

Around = Callable[[Any, Any], AbstractAsyncContextManager[Any]]
"""From what the caller sends, a message or an async iterator of them, and the call's context: a context manager that
is entered around the call, and gives what the method gets in place of that. It may abort the call before and after."""


def wrap_handler(handler: Any, around: Around, deserializer: Callable[[bytes], Any] | None = None) -> Any:  # noqa: ANN401 (gRPC's types are too narrow)
    """The handler of a method, with `around` entered around each call. deserializer: in place of its own."""
    kind = _kind(handler)
    inner = getattr(handler, kind)
    # A method with a stream of responses may also write them to its context, and is a coroutine function then.
    call = _yielding(inner, around) if inspect.isasyncgenfunction(inner) else _returning(inner, around)
    create = getattr(grpc, f"{kind}_rpc_method_handler")
    return create(call, deserializer or handler.request_deserializer, handler.response_serializer)


def with_codecs(handler: Any, deserializer: Callable[[bytes], Any] | None, serializer: Any) -> Any:  # noqa: ANN401
    """The same handler, with other functions from and to the bytes of messages."""
    kind = _kind(handler)
    return getattr(grpc, f"{kind}_rpc_method_handler")(getattr(handler, kind), deserializer, serializer)


def _kind(handler: Any) -> str:  # noqa: ANN401
    return f"{'stream' if handler.request_streaming else 'unary'}_{'stream' if handler.response_streaming else 'unary'}"


def _returning(inner: Callable[[Any, Any], Any], around: Around) -> Callable[[Any, Any], Any]:
    async def call(request: Any, context: Any) -> Any:  # noqa: ANN401
        async with around(request, context) as passed:
            return await inner(passed, context)

    return call


def _yielding(inner: Callable[[Any, Any], Any], around: Around) -> Callable[[Any, Any], AsyncIterator[Any]]:
    async def call(request: Any, context: Any) -> AsyncIterator[Any]:  # noqa: ANN401
        async with around(request, context) as passed, aclosing(inner(passed, context)) as responses:
            async for response in responses:
                yield response

    return call
