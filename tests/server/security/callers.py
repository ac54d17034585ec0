"""Callers that the tests of authorization know, and the statuses of those that are refused."""

import grpc

from foldmint_server.security.bearer_tokens import AccessToken, Scope, digest_of

UNAUTHENTICATED, PERMISSION_DENIED = grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED
TOKENIZE, ACTIVATE = "/foldmint.v1.TokenizerService/Tokenize", "/foldmint.v1.CodebookService/ActivateCodebook"


def tokens(**scopes: list[Scope]) -> tuple[AccessToken, ...]:
    """Tokens whose value is their name and `-token`."""
    return tuple(AccessToken(name, digest_of(f"{name}-token"), frozenset(given)) for name, given in scopes.items())


KNOWN = tokens(alice=["tokenize"], viewer=["read"], operator=["admin"])
