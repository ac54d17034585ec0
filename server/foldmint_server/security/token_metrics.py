"""Metrics of tokens by their names, which are the operator's own."""

import contextlib

from foldmint_server.metrics.registry import Metrics
from foldmint_server.security.bearer_tokens import AccessTokens
from foldmint_server.security.expiry import ExpiryWarnings


class TokenMetrics:
    """Metrics of the tokens of a file, by their names: of at most so many, expiry, last use, and usage."""

    def __init__(self, metrics: Metrics, most: int) -> None:
        self._metrics, self._most = metrics, most
        self._expiry = ExpiryWarnings("token", self._report, once_expired=False)
        self._names: set[str] = set()
        self._expiring: set[str] = set()

    def record(self, tokens: AccessTokens) -> None:
        """The file was read."""
        shown = tokens.tokens[: self._most]
        self._metrics.callers.know(token.name for token in shown)
        ends = {token.name: token.expires.timestamp() for token in tokens.tokens if token.expires is not None}
        soonest = dict(sorted(ends.items(), key=lambda one: one[1])[: self._most])
        for name in self._expiring - set(soonest):
            self._metrics.token_expiry.remove(name)
        for name in self._names - {token.name for token in shown}:
            with contextlib.suppress(KeyError):  # not used yet
                self._metrics.token_last_use.remove(name)
        self._expiry.forget(self._expiring - set(soonest))
        self._names, self._expiring = {token.name for token in shown}, set(soonest)
        for name, end in soonest.items():
            self._expiry.record(name, end)

    def used(self, name: str, when: float) -> None:
        """A token was used."""
        if name in self._names:
            self._metrics.token_last_use.labels(name).set(when)

    def check(self) -> None:
        """Warn of tokens that expire soon."""
        self._expiry.check()

    def _report(self, name: str, expires: float) -> None:
        self._metrics.token_expiry.labels(name).set(expires)
