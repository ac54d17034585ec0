"""Who may call: by token, as the anonymous, on loopback too; and which scopes each RPC needs."""

import asyncio
from importlib import import_module
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from server.security.callers import ACTIVATE, KNOWN, PERMISSION_DENIED, TOKENIZE, UNAUTHENTICATED

from foldmint.v1 import codebook_pb2 as cb
from foldmint.v1 import tokenizer_pb2
from foldmint_server.security.audit_log import AuditLog
from foldmint_server.security.authorization import NEEDS, AccessDenied, AuthorizationInterceptor, Authorizer
from foldmint_server.security.bearer_tokens import AccessTokens
from helpers.support import ROOT

GET_MODEL, GET_USAGE = "/foldmint.v1.TokenizerService/GetModel", "/foldmint.v1.CodebookService/GetUsage"


def test_every_rpc_has_its_scopes() -> None:
    """A method that is added, and not thought of here, fails this."""
    own = [import_module(f"foldmint.v1.{path.stem}") for path in (ROOT / "protos/foldmint/v1").glob("*_pb2.py")]
    files = (*own, health_pb2, reflection_pb2)
    assert {tokenizer_pb2, cb} <= set(files)
    methods = {
        f"/{service.full_name}/{method.name}"
        for file in files
        for service in file.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    }
    assert methods - {"/grpc.health.v1.Health/List"} == set(NEEDS)
    assert {method for method in NEEDS if not NEEDS[method]} == {method for method in NEEDS if "/grpc.health" in method}


@pytest.mark.parametrize(
    ("bearer", "allowed"),
    [
        ("alice", {TOKENIZE, GET_MODEL}),
        ("viewer", {GET_MODEL, GET_USAGE}),
        ("operator", {GET_MODEL, GET_USAGE, ACTIVATE}),
        ("stranger", set()),
        ("", set()),
    ],
)
def test_scopes(bearer: str, allowed: set[str]) -> None:
    access = Authorizer(lambda: AccessTokens(KNOWN))
    for method in (TOKENIZE, GET_MODEL, GET_USAGE, ACTIVATE):
        header = f"Bearer {bearer}-token" if bearer else None
        if method in allowed:
            assert access.authorize(method, header).name == bearer
        else:
            with pytest.raises(AccessDenied) as caught:
                access.authorize(method, header)
            known = bearer in ("alice", "viewer", "operator")
            assert caught.value.code is (PERMISSION_DENIED if known else UNAUTHENTICATED)
            assert "-token" not in caught.value.reason


def test_the_anonymous_may_what_they_are_given() -> None:
    access = Authorizer(lambda: AccessTokens(KNOWN), frozenset({"read"}))
    assert access.authorize(GET_USAGE, None).name == ""
    for method in (TOKENIZE, ACTIVATE):
        with pytest.raises(AccessDenied, match=r"`authorization: Bearer TOKEN`") as caught:
            access.authorize(method, None)
        assert caught.value.code is UNAUTHENTICATED
    # A token that is not known is no way to be anonymous.
    with pytest.raises(AccessDenied, match="not known"):
        access.authorize(GET_USAGE, "Bearer guess")


def test_without_a_file_of_tokens_nobody_is_an_operator() -> None:
    access = Authorizer(None)
    for method in (TOKENIZE, GET_USAGE):
        access.authorize(method, None)
        access.authorize(method, "Bearer whatever")
    with pytest.raises(AccessDenied, match="--insecure-admin") as caught:
        access.authorize(ACTIVATE, None)
    assert caught.value.code is PERMISSION_DENIED
    assert Authorizer(None, insecure_admin=True).authorize(ACTIVATE, None).scopes >= {"admin"}
    with_both = Authorizer(lambda: AccessTokens(KNOWN), insecure_admin=True)
    for header in (None, "Bearer alice-token"):
        with_both.authorize(ACTIVATE, header)
    with pytest.raises(AccessDenied):
        with_both.authorize(TOKENIZE, None)


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Bearer",
        "Bearer ",
        "alice-token",
        "Basic alice-token",
        "Bearer alice-token, Bearer alice-token",
        b"Bearer alice-token",
        "Bearer " + "x" * 100_000,
    ],
)
def test_headers_that_are_none(header: str | bytes) -> None:
    with pytest.raises(AccessDenied) as caught:
        Authorizer(lambda: AccessTokens(KNOWN)).authorize(TOKENIZE, header)
    assert caught.value.code is UNAUTHENTICATED
    assert "alice-token" not in caught.value.reason


def test_the_scheme_is_read_in_any_case() -> None:
    access = Authorizer(lambda: AccessTokens(KNOWN))
    assert access.authorize(TOKENIZE, "bEARER  alice-token ").name == "alice"


@pytest.mark.parametrize("tokens", [True, False])
def test_methods_without_an_entry_are_called_by_no_one(tokens: bool) -> None:
    """Not even by an operator, of a server that has such a method; strangers do not learn that there is none."""
    access = Authorizer((lambda: AccessTokens(KNOWN)) if tokens else None, insecure_admin=True)
    called = []

    async def hidden(request: bytes, context: Any) -> bytes:
        called.append(request)
        return b""

    async def run() -> list[grpc.StatusCode]:
        refused: list[str] = []
        interceptor = AuthorizationInterceptor(access, AuditLog(), lambda status, _: refused.append(status))
        server = grpc.aio.server(interceptors=[interceptor])
        handlers: dict[str, Any] = {"Hidden": grpc.unary_unary_rpc_method_handler(hidden)}
        service = TOKENIZE.split("/")[1]
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        codes = []
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            for name in ("operator-token", "alice-token", "guess"):
                method: Any = channel.unary_unary(f"/{service}/Hidden")
                codes.append(await method(b"x", metadata=[("authorization", f"Bearer {name}")]).code())
        await server.stop(None)
        assert refused == [code.name for code in codes]
        return codes

    unknown = UNAUTHENTICATED if tokens else grpc.StatusCode.UNIMPLEMENTED
    assert asyncio.run(run()) == [grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.UNIMPLEMENTED, unknown]
    assert not called
