"""Client of Prometheus' HTTP API: instant queries, and the raw samples of series."""

import json
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from foldmint_client.addresses import is_loopback
from foldmint_maintenance.errors import UsageUnknown

# Seconds of samples fetched at once: 5760 of each series at one every 15 seconds.
_SLICE = 86_400


@dataclass(frozen=True)
class Entry:
    """Access to a Prometheus. auth: for basic authentication. context: of TLS; None for the system's authorities."""

    auth: httpx.BasicAuth | None = field(default=None, repr=False)
    context: ssl.SSLContext | None = field(default=None, repr=False)


OPEN = Entry()


def read_entry(auth: Path | None, ca: Path | None) -> Entry:
    """Read the files of an `Entry`.

    auth: a file of one line, NAME:PASSWORD. ca: a PEM file of certificates to trust instead of the system's. Raises
    `ValueError` if one is invalid; its message holds nothing of the content.
    """
    login, context = None, None
    if auth is not None:
        try:
            text = auth.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"{auth}: {getattr(error, 'strerror', None) or 'no text'}") from None
        name, colon, password = text.partition(":")
        if not name or not colon or len(text.splitlines()) != 1:
            raise ValueError(f"{auth} is one line, NAME:PASSWORD")
        login = httpx.BasicAuth(name, password)
    if ca is not None:
        try:
            context = ssl.create_default_context(cafile=ca)
        except OSError as error:  # ssl's own errors are of this kind
            raise ValueError(f"{ca}: {error.strerror or 'no certificates in PEM'}") from None
    return Entry(login, context)


class Series(NamedTuple):
    """Samples of a series. labels: without its name. times: seconds since 1970, rising; values: at these."""

    labels: dict[str, str]
    times: list[float]
    values: list[float]


class Prometheus:
    """A Prometheus server. All methods raise `UsageUnknown` if it cannot be reached or rejects a query."""

    def __init__(self, url: str, timeout: float = 60.0, entry: Entry = OPEN) -> None:
        """url: of its page, such as `http://localhost:9090`. timeout: seconds, of one query.

        Raises `ValueError` if either is invalid, or a password would travel in the clear.
        """
        if not url.startswith(("http://", "https://")):
            raise ValueError(f"{url!r} is not an address of a Prometheus: it begins with neither http:// nor https://")
        if not 0 < timeout < float("inf"):
            raise ValueError(f"timeout must be a positive number of seconds, not {timeout}")
        authority = url.partition("://")[2].partition("/")[0]
        if "@" in authority:
            raise ValueError(
                f"the address of Prometheus at {authority.rpartition('@')[2]} holds a password: pass a file"
            )
        if url.startswith("http://"):
            if entry.auth and not is_loopback(authority):
                raise ValueError(f"a password would go to {url} in the clear, for all to read: use https")
            if entry.context is not None:
                raise ValueError(f"{url} has no certificate that an authority could have signed: use https")
        self.url, self._timeout, self._auth = url.rstrip("/"), timeout, entry.auth
        # The system's authorities, where httpx by itself would take those of certifi.
        self._context = entry.context or ssl.create_default_context()

    def now(self) -> float:
        """The time by its own clock, seconds since 1970."""
        result = self._query("time()", None)
        return float(result["result"][1])

    def at(self, query: str, time: float) -> list[tuple[dict[str, str], float]]:
        """Labels and value of each series of an expression at a time, seconds since 1970."""
        return [
            (_labels(series["metric"]), float(series["value"][1])) for series in self._vectors(query, time, "vector")
        ]

    def readings(self, selector: str, start: float, end: float) -> Iterator[Series]:
        """Raw samples of series between two times; a long range comes in parts, the latest first."""
        while end > start:
            length = min(end - start, _SLICE)
            for series in self._vectors(f"{selector}[{max(1, round(length * 1000))}ms]", end, "matrix"):
                times = [float(time) for time, _ in series["values"]]
                yield Series(_labels(series["metric"]), times, [float(value) for _, value in series["values"]])
            end -= length

    def _vectors(self, query: str, time: float, kind: str) -> list[dict[str, Any]]:
        data = self._query(query, time)
        if data["resultType"] != kind:
            raise UsageUnknown(f"{self.url} answers {query} with a {data['resultType']}; a {kind} is wanted")
        result: list[dict[str, Any]] = data["result"]
        return result

    def _query(self, query: str, time: float | None) -> dict[str, Any]:
        form = {"query": query, "timeout": f"{max(1, round(self._timeout * 1000))}ms"}
        if time is not None:
            form["time"] = f"{time:.3f}"
        try:
            reply = httpx.post(
                f"{self.url}/api/v1/query",
                data=form,
                auth=self._auth,
                timeout=self._timeout,
                verify=self._context,
                follow_redirects=True,  # httpx drops the password if the target is another server
            )
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            raise UsageUnknown(f"{self.url} does not answer: {str(error) or type(error).__name__}") from error
        if not reply.is_success:
            reason = _reason(reply.content) or f"HTTP Error {reply.status_code}: {reply.reason_phrase}"
            raise UsageUnknown(f"{self.url} refuses {query}: {reason}")
        content = reply.content
        try:
            data: dict[str, Any] = json.loads(content)["data"]
            return {"resultType": data["resultType"], "result": data["result"]}
        except (ValueError, KeyError, TypeError) as error:
            raise UsageUnknown(f"{self.url} answers {query} as no Prometheus does: {content[:200]!r}") from error


def matching(labels: Mapping[str, str]) -> str:
    """Label matchers that select series with these labels."""
    return ",".join(f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in sorted(labels.items()))


def _labels(metric: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in metric.items() if name != "__name__"}


def _reason(content: bytes) -> str:
    """The error of a response; empty if it has none."""
    try:
        return str(json.loads(content)["error"])
    except (ValueError, KeyError, TypeError):
        return ""
