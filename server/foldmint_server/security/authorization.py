"""Who may call what: a call is authorized by its token, or as anonymous, before its message is read.

A call without the token that it needs ends with UNAUTHENTICATED, one whose token does not reach with PERMISSION_DENIED.
A method that `NEEDS` does not list is never called: those who have a scope are told that there is none of its name.
"""

import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import grpc
import structlog

from foldmint_server.method_handlers import wrap_handler
from foldmint_server.security.audit_log import AuditLog
from foldmint_server.security.bearer_tokens import AccessToken, AccessTokens, Rate, Scope, iso

log = structlog.get_logger(__name__)

_TOKENIZER, _CODEBOOK = "/foldmint.v1.TokenizerService", "/foldmint.v1.CodebookService"
_ANY: tuple[Scope, ...] = ("tokenize", "read", "admin")
_READ: tuple[Scope, ...] = ("read", "admin")

NEEDS: Mapping[str, tuple[Scope, ...]] = {
    f"{_TOKENIZER}/Tokenize": ("tokenize",),
    f"{_TOKENIZER}/TokenizeStream": ("tokenize",),
    f"{_TOKENIZER}/Detokenize": ("tokenize",),
    f"{_TOKENIZER}/GetModel": _ANY,  # clients ask for its limits before they tokenize
    f"{_CODEBOOK}/ListCodebooks": _READ,
    f"{_CODEBOOK}/GetCodebook": _READ,
    f"{_CODEBOOK}/GetUsage": _READ,
    f"{_CODEBOOK}/ActivateCodebook": ("admin",),
    f"{_CODEBOOK}/RollbackCodebook": ("admin",),
    f"{_CODEBOOK}/SampleEmbeddings": ("admin",),  # what others sent can be guessed from it
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": _ANY,
    # Of probes and load balancers, which carry no token.
    "/grpc.health.v1.Health/Check": (),
    "/grpc.health.v1.Health/Watch": (),
}
"""For each RPC the scopes of which a caller needs one; none: open to all. Others cannot be called by anyone."""

_BEARER = "bearer "
_LONGEST = 512  # characters of a token that are looked at


@dataclass(frozen=True)
class Caller:
    """Who calls. name: empty for the anonymous. rate: None for no limit."""

    name: str = ""
    scopes: frozenset[Scope] = field(default_factory=frozenset)
    rate: Rate | None = None


ANONYMOUS = Caller()
CALLER: ContextVar[Caller] = ContextVar("caller", default=ANONYMOUS)
"""Who makes the call that is being answered, in its task and those that it starts."""


class AccessDenied(Exception):
    """A rejected call, with the status and the message for its caller. name: of its token, if it has one."""

    def __init__(self, code: grpc.StatusCode, reason: str, name: str = "") -> None:
        self.code, self.reason, self.name = code, reason, name
        super().__init__(reason)


class Authorizer:
    """Decides who may call what.

    tokens: gives the valid tokens; None: there are none, and anyone may tokenize and read. anonymous: scopes of callers
    without a token, if there are tokens. insecure_admin: anyone may call admin methods. used: is called with each valid
    token that is presented.
    """

    def __init__(
        self,
        tokens: Callable[[], AccessTokens] | None,
        anonymous: frozenset[Scope] = frozenset(),
        *,
        insecure_admin: bool = False,
        used: Callable[[AccessToken], object] = lambda _: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._tokens, self._used, self._clock = tokens, used, clock
        own: frozenset[Scope] = frozenset({"admin"} if insecure_admin else ())
        self._anyone = own
        self._anonymous = Caller("", own | (frozenset({"tokenize", "read"}) if tokens is None else anonymous))

    def authorize(self, method: str, authorization: str | bytes | None) -> Caller:
        """Who calls a method, `/package.Service/Method`, with that header. Raises AccessDenied."""
        needed = NEEDS.get(method)
        if needed == ():
            return ANONYMOUS
        caller = self._known(authorization)
        wants = _ANY if needed is None else needed
        if caller.scopes.intersection(wants):
            if needed is None:
                raise AccessDenied(grpc.StatusCode.UNIMPLEMENTED, "the server has no such method", caller.name)
            return caller
        wanted = " or ".join(f"`{scope}`" for scope in wants)
        if caller.name:
            raise AccessDenied(
                grpc.StatusCode.PERMISSION_DENIED, f"the token {caller.name!r} lacks the scope {wanted}", caller.name
            )
        if self._tokens is None:
            raise AccessDenied(
                grpc.StatusCode.PERMISSION_DENIED,
                f"this needs the scope {wanted}, and the server has no tokens (--tokens-file) to give it; "
                "--insecure-admin admits anyone who reaches the admin listener",
            )
        raise AccessDenied(
            grpc.StatusCode.UNAUTHENTICATED,
            f"this needs a token with the scope {wanted}, sent as `authorization: Bearer TOKEN`",
        )

    def _known(self, authorization: str | bytes | None) -> Caller:
        if self._tokens is None or authorization is None:
            return self._anonymous
        if not isinstance(authorization, str) or not authorization[: len(_BEARER)].lower() == _BEARER:
            raise AccessDenied(grpc.StatusCode.UNAUTHENTICATED, "`authorization` is not of the form `Bearer TOKEN`")
        presented = authorization[len(_BEARER) :].strip()
        token = self._tokens().find(presented) if len(presented) <= _LONGEST else None
        if token is None:
            raise AccessDenied(grpc.StatusCode.UNAUTHENTICATED, "the token is not known, or was revoked")
        if token.expires is not None and token.expired(self._clock()):
            raise AccessDenied(
                grpc.StatusCode.UNAUTHENTICATED,
                f"the token {token.name!r} expired at {iso(token.expires)}; ask whoever runs this server for a new one",
                token.name,
            )
        self._used(token)
        return Caller(token.name, token.scopes | self._anyone, token.rate)


class AuthorizationInterceptor(grpc.aio.ServerInterceptor):
    """Authorizes calls or rejects them, sets CALLER, and has admin calls audited.

    refused: is called with the name of the status of each rejected call, and the name of its token, if it has one.
    """

    def __init__(self, access: Authorizer, audit: AuditLog, refused: Callable[[str, str], None]) -> None:
        self._access, self._audit, self._refused = access, audit, refused

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:  # noqa: ANN401 (gRPC's types are too narrow)
        """The method's handler, or one that ends the call."""
        method = handler_call_details.method
        try:
            caller = self._access.authorize(method, _authorization(handler_call_details.invocation_metadata))
        except AccessDenied as denied:
            return self._ending(method, denied)
        CALLER.set(caller)
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        if _is_admin(method):
            return self._audit.handler(method, caller.name, handler)
        if caller.name and handler.request_streaming and handler.response_streaming:
            return self._watched(handler_call_details, handler)
        return handler

    def _watched(self, details: Any, handler: Any) -> Any:  # noqa: ANN401
        """The handler of a stream that ends once its token is no longer valid; what was taken is answered before."""

        @asynccontextmanager
        async def around(requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:  # noqa: ANN401
            ended: AccessDenied | None = None

            async def allowed() -> AsyncIterator[Any]:
                nonlocal ended
                async for request in requests:
                    try:
                        self._access.authorize(details.method, _authorization(details.invocation_metadata))
                    except AccessDenied as denied:
                        ended = denied
                        return
                    yield request

            yield allowed()
            if ended is not None:
                self._refused(ended.code.name, ended.name)
                await context.abort(ended.code, ended.reason)

        return wrap_handler(handler, around)

    def _ending(self, method: str, denied: AccessDenied) -> "grpc.RpcMethodHandler[Any, Any]":
        """A handler that ends a call of any kind, without waiting for a message of it."""

        async def end(requests: AsyncIterator[Any], context: Any) -> AsyncIterator[bytes]:  # noqa: ANN401, ARG001
            self._refused(denied.code.name, denied.name)
            if _is_admin(method):
                self._audit.denied(method, denied.name, context, denied.code.name)
            log.warning(
                "not let in",
                throttle=denied.code.name,
                method=method[:200],
                status=denied.code.name,
                name=denied.name,
                peer=context.peer(),
            )
            await context.abort(denied.code, denied.reason)
            yield b""

        return grpc.stream_stream_rpc_method_handler(end)


def _is_admin(method: str) -> bool:
    return NEEDS.get(method) == ("admin",)


def _authorization(metadata: Any) -> str | bytes | None:  # noqa: ANN401
    """The header; where it is sent more than once, all of them, which is not a token then."""
    found = [value for key, value in metadata or () if key == "authorization"]
    if len(found) > 1:
        return b""
    value: str | bytes | None = found[0] if found else None
    return value
